// Package datastore knows data stores and queues by their images: on which
// ports they serve, and whether what manifests set makes them ask for a
// password.
package datastore

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubeguardian/kubeguardian/inventory"
)

// A store is one product. Settings are the names of variables, flags and
// entries of configuration files; "name=a,b" wants one of these values.
type store struct {
	images []string // the last part of the image's name
	ports  []int32
	open   []string // settings that let anybody in, whatever else is set
	closed []string // settings that ask for credentials
	lax    []string // settings that let anybody in unless one of closed is set
	bare   bool     // without any setting anybody gets in
}

// stores are the products that are known. What a product does without a
// setting is said only where that is certain for its usual image.
var stores = []store{
	{
		images: []string{"postgres", "postgresql", "timescaledb", "postgis", "pgvector", "spilo", "postgresql-repmgr"}, ports: []int32{5432},
		open:   []string{"POSTGRES_HOST_AUTH_METHOD=trust"},
		closed: []string{"POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "POSTGRESQL_PASSWORD", "POSTGRESQL_PASSWORD_FILE", "POSTGRESQL_POSTGRES_PASSWORD"},
		lax:    []string{"ALLOW_EMPTY_PASSWORD=yes,true,1"},
	},
	{
		images: []string{"mysql", "mysql-server", "mariadb", "mariadb-galera", "percona-server"}, ports: []int32{3306},
		open: []string{"--skip-grant-tables", "skip-grant-tables"},
		closed: []string{
			"MYSQL_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD_FILE", "MYSQL_RANDOM_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD_FILE",
			"MARIADB_ROOT_PASSWORD_HASH", "MARIADB_RANDOM_ROOT_PASSWORD",
		},
		lax: []string{"MYSQL_ALLOW_EMPTY_PASSWORD", "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD", "ALLOW_EMPTY_PASSWORD=yes,true,1"},
	},
	{
		images: []string{"redis", "redis-stack-server", "valkey", "keydb", "dragonfly", "redis-cluster"}, ports: []int32{6379},
		closed: []string{"--requirepass", "requirepass", "--aclfile", "aclfile", "--user", "user"},
		lax:    []string{"ALLOW_EMPTY_PASSWORD=yes,true,1", "--protected-mode=no", "protected-mode=no"}, bare: true,
	},
	{
		images: []string{"memcached"}, ports: []int32{11211},
		closed: []string{"-S", "--enable-sasl", "-Y", "--auth-file", "MEMCACHED_PASSWORD"}, bare: true,
	},
	{
		images: []string{"mongo", "mongodb", "percona-server-mongodb"}, ports: []int32{27017},
		open:   []string{"--noauth"},
		closed: []string{"--auth", "--keyFile", "MONGO_INITDB_ROOT_USERNAME", "MONGO_INITDB_ROOT_USERNAME_FILE", "MONGODB_ROOT_PASSWORD", "authorization=enabled"},
		lax:    []string{"ALLOW_EMPTY_PASSWORD=yes,true,1"}, bare: true,
	},
	{
		images: []string{"elasticsearch", "elasticsearch-oss"}, ports: []int32{9200, 9300},
		open: []string{"xpack.security.enabled=false"}, closed: []string{"xpack.security.enabled=true", "ELASTIC_PASSWORD", "ELASTIC_PASSWORD_FILE"},
	},
	{
		images: []string{"opensearch"}, ports: []int32{9200, 9300},
		open:   []string{"plugins.security.disabled=true", "DISABLE_SECURITY_PLUGIN=true"},
		closed: []string{"OPENSEARCH_INITIAL_ADMIN_PASSWORD"},
	},
	{
		images: []string{"rabbitmq"}, ports: []int32{5672},
		open: []string{"loopback_users=none"}, closed: []string{"RABBITMQ_DEFAULT_PASS", "RABBITMQ_DEFAULT_PASS_FILE", "RABBITMQ_PASSWORD", "default_pass"},
	},
	{
		images: []string{"kafka", "cp-kafka"}, ports: []int32{9092},
		open:   []string{"ALLOW_PLAINTEXT_LISTENER=yes,true,1"},
		closed: []string{"KAFKA_CFG_SASL_ENABLED_MECHANISMS", "KAFKA_SASL_ENABLED_MECHANISMS", "KAFKA_CLIENT_PASSWORDS"},
	},
	{
		images: []string{"nats", "nats-server"}, ports: []int32{4222},
		closed: []string{"--user", "--pass", "--auth", "authorization", "--tlsverify"}, bare: true,
	},
	{
		images: []string{"cassandra", "scylla"}, ports: []int32{9042},
		open:   []string{"CASSANDRA_AUTHENTICATOR=AllowAllAuthenticator", "authenticator=AllowAllAuthenticator"},
		closed: []string{"CASSANDRA_PASSWORD", "CASSANDRA_AUTHENTICATOR=PasswordAuthenticator", "authenticator=PasswordAuthenticator"},
	},
	{
		images: []string{"etcd"}, ports: []int32{2379},
		open: []string{"ALLOW_NONE_AUTHENTICATION=yes,true,1"}, closed: []string{"--client-cert-auth", "ETCD_CLIENT_CERT_AUTH=true", "ETCD_ROOT_PASSWORD"},
	},
	{
		images: []string{"minio"}, ports: []int32{9000},
		closed: []string{"MINIO_ROOT_PASSWORD", "MINIO_ROOT_PASSWORD_FILE", "MINIO_SECRET_KEY"},
	},
	{
		images: []string{"clickhouse", "clickhouse-server"}, ports: []int32{8123, 9000},
		open: []string{"CLICKHOUSE_SKIP_USER_SETUP=1,true,yes"}, closed: []string{"CLICKHOUSE_PASSWORD", "CLICKHOUSE_PASSWORD_FILE", "CLICKHOUSE_ADMIN_PASSWORD"},
		lax: []string{"ALLOW_EMPTY_PASSWORD=yes,true,1"},
	},
	{images: []string{"cockroach"}, ports: []int32{26257}, open: []string{"--insecure"}, closed: []string{"--certs-dir"}},
	{
		images: []string{"influxdb"}, ports: []int32{8086},
		open:   []string{"INFLUXDB_HTTP_AUTH_ENABLED=false"},
		closed: []string{"DOCKER_INFLUXDB_INIT_PASSWORD", "INFLUXDB_HTTP_AUTH_ENABLED=true", "INFLUXDB_ADMIN_USER_PASSWORD"},
	},
	{images: []string{"couchdb"}, ports: []int32{5984}, closed: []string{"COUCHDB_PASSWORD"}},
	{images: []string{"neo4j"}, ports: []int32{7687, 7474}, open: []string{"NEO4J_AUTH=none"}, closed: []string{"NEO4J_AUTH"}},
	{images: []string{"zookeeper"}, ports: []int32{2181}, lax: []string{"ALLOW_ANONYMOUS_LOGIN=yes,true,1"}, closed: []string{"ZOO_SERVER_PASSWORDS", "ZOO_SERVER_USERS"}},
	{images: []string{"mssql"}, ports: []int32{1433}, closed: []string{"MSSQL_SA_PASSWORD", "SA_PASSWORD"}},
	{images: []string{"arangodb"}, ports: []int32{8529}, open: []string{"ARANGO_NO_AUTH=1,true,yes"}, closed: []string{"ARANGO_ROOT_PASSWORD", "ARANGO_ROOT_PASSWORD_FILE"}},
}

// find returns the product that an image is, or nil. Programs around a product,
// as its exporter, have names of their own.
func find(image string) *store {
	name, _, _ := strings.Cut(image, "@")
	name = name[strings.LastIndex(name, "/")+1:]
	name, _, _ = strings.Cut(name, ":")
	if strings.Contains(image, "mssql/server") {
		name = "mssql"
	}
	for i := range stores {
		if slices.Contains(stores[i].images, name) {
			return &stores[i]
		}
	}
	return nil
}

// container returns the container that is a data store, and the product.
func container(w *inventory.Workload) (*corev1.Container, *store) {
	for i, c := range w.Template.Spec.Containers {
		if s := find(c.Image); s != nil {
			return &w.Template.Spec.Containers[i], s
		}
	}
	return nil, nil
}

// Ports returns the ports on which a workload serves data: those that the
// container of the data store declares, else the usual ones of the product; none
// for a workload that is no data store, or a task that only uses its image.
func Ports(w *inventory.Workload) []corev1.ContainerPort {
	c, s := container(w)
	switch {
	case c == nil, w.GetKind() == "Job", w.GetKind() == "CronJob":
		return nil
	case len(c.Ports) > 0:
		return c.Ports
	}
	var out []corev1.ContainerPort
	for _, p := range s.ports {
		out = append(out, corev1.ContainerPort{ContainerPort: p})
	}
	return out
}
