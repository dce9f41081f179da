package gatekeeper

import (
	"encoding/json"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// FuzzLiteral: parameters in CEL are what they were in JSON.
func FuzzLiteral(f *testing.F) {
	f.Add([]byte(`{"a'b": ["it's \"\\ \n\t é \u0000 \ud83d\ude00", 1, -2.5, 1e21, null, true, [], {}]}`))
	f.Add([]byte(`"\u007f\u2028"`))
	f.Add([]byte(`[[1], ["a"], {"b": {"c": 1.0}}]`))
	f.Add([]byte(`[-9223372036854775808, 9223372036854775807]`))
	env, err := cel.NewEnv(cel.HomogeneousAggregateLiterals(), cel.Variable("given", cel.DynType))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var given any
		if len(data) > 500 || json.Unmarshal(data, &given) != nil {
			return
		}
		given = copyJSON(given)
		literal := celLiteral(given)
		compiled, issues := env.Compile("given == dyn(" + literal + ")")
		if issues.Err() != nil {
			t.Fatalf("%s becomes %s: %v", data, literal, issues.Err())
		}
		program, err := env.Program(compiled)
		if err != nil {
			t.Fatal(err)
		}
		if same, _, err := program.Eval(map[string]any{"given": given}); err != nil || same != types.True {
			t.Errorf("%s becomes %s, which is another value: %v", data, literal, err)
		}
	})
}
