# make demo    everything on this machine: build, lab, attacks, score, web page
# make test    all the tests, the real Kubernetes API server and browser included
# make check   build, vet, lint and the fast tests: for daily work
# make race    the tests under the race detector
# make bench   scan, admission and audit event rates
# make app-up  Internship Matcher on this machine, until Ctrl-C
# make pods    every rule for system calls in real pods, and ten minutes of benign traffic
# make images  its container images, in bin/images; IMAGES has flags, such as -push
# make product-images those of KubeGuardian itself, in bin/product
# make failover its database under load, while parts of it are taken away
# make kernels the sensor's tests on kernels of Debian: older ones, and arm64, emulated
# make ha      the chart with replicas, PostgreSQL and NATS on the lab's node
# make chaos   server, bus and database killed while 5,000 alerts come each second; and the default, one server

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
GOSEC       := github.com/securego/gosec/v2/cmd/gosec@v2.30.0
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LAB_DIR     ?=

# All but the end-to-end test, which has the machine for itself. It runs the product
# as a process, as test/gatekeeper does: -count=1, since Go knows a result for as
# long as the test itself stays the same.
FAST = $(shell go list ./... | grep -v /test/e2e)

# Run data through much code in one thread each, or run processes: the race detector
# takes long there and has nothing to see.
DATA := %/cmd/kubeguardian %/content %/fix %/test %/test/charts %/test/bench/chaos

# Share state between goroutines, and link neither Helm, Kustomize, gitleaks nor
# SQLite, which take minutes under the race detector: the webhook's handlers and
# certificates, the receiver of audit batches, the rules that every batch is
# matched against, the catalogue of tools that every request reads. The rest of
# what is concurrent (control, inventory, server, store, web) waits for make race.
RACE := %/admission %/k8saudit %/rule %/tool

# What the README promises figures for.
BENCH := ./inventory ./control ./admission ./k8saudit ./rule ./store

.PHONY: all build demo test check race bench lint vulncheck gosec lab-up lab-down app-up app-node pods kernels ha images product-images failover chaos browser postgres containerd clang node prometheus qemu clean

all: build

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/ ./cmd/kubeguardian ./cmd/kubeguardian-agent
	cd lab && CGO_ENABLED=0 go build -trimpath -o ../bin/lab .

demo: build
	go build -o bin/ ./test/demo
	@exec bin/demo

test: build browser postgres containerd clang node prometheus
	bin/lab build --node
	go vet ./... && cd lab && go vet ./...
	go test -timeout 20m $(FAST)
	cd lab && go test -timeout 10m ./...
	cd lab/node && go vet ./... && go test ./...
	cd test/gatekeeper && go vet ./... && go test -count=1 -timeout 10m ./...
	cd lab/install && go vet ./... && go test -count=1 -timeout 10m ./...
	cd examples/internship-matcher && go vet -tags failover ./... && go test -timeout 10m ./...
	go test -count=1 -timeout 20m ./test/e2e

# Compiles with the flags of the tests, so that nothing is compiled twice.
check: lint
	go build ./... && cd lab && go build -o /dev/null .
	go vet ./... && cd lab && go vet ./...
	go test -short -vet=off $(filter-out $(RACE),$(FAST))
	go test -short -vet=off -race $(filter $(RACE),$(FAST))

# The browser, which -short leaves out, keeps many connections busy at once.
race: browser
	go test -short -race -timeout 20m $(filter-out $(DATA),$(FAST))
	go test -race -timeout 20m -run Browser ./web

bench:
	go test -run '^$$' -bench . -benchmem $(BENCH)
	go run ./test/bench
	go run ./test/bench/webhook
	cd test/gatekeeper && go run ./bench

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l . | sed 's/^/gofmt would change: /'; exit 1; }
	go run $(STATICCHECK) ./...
	cd lab && go run $(STATICCHECK) ./...
	cd lab/node && go run $(STATICCHECK) ./...
	cd test/gatekeeper && go run $(STATICCHECK) ./...
	cd lab/install && go run $(STATICCHECK) ./...
	cd examples/internship-matcher && go run $(STATICCHECK) ./...

# Needs the Go vulnerability database.
vulncheck:
	go run $(GOVULNCHECK) ./...

# The example application is to be a model: what stays against a rule says why.
gosec:
	cd examples/internship-matcher && go run $(GOSEC) -quiet -exclude-generated -nosec-require-rules -nosec-require-justification ./...

lab-up: build
	bin/lab up $(if $(LAB_DIR),--dir $(LAB_DIR))

lab-down: build
	bin/lab down $(if $(LAB_DIR),--dir $(LAB_DIR))

# As root: each part of the database is taken away while people write; and who has
# no business there tries to get in. The recipe of its image is followed, too.
failover: postgres
	@command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap
	cd examples/internship-matcher && go test -v -timeout 20m -tags failover -run 'TestFailover|TestCluster|TestContainerfile' ./test

# Nothing may be lost, stored twice or told of twice; CHAOS has flags, such as -rate.
chaos: build postgres
	bin/lab up --dir bin/chaos >/dev/null
	trap 'bin/lab down --dir bin/chaos' EXIT; go run ./test/bench/chaos -kubeconfig bin/chaos/admin.kubeconfig $(CHAOS)
	go run ./test/bench/chaos -single

images:
	cd examples/internship-matcher && go run ./cmd/images -o ../../bin/images $(IMAGES)

product-images:
	cd examples/internship-matcher && go run ./cmd/images -project kubeguardian -o ../../bin/product $(IMAGES)

# As root: the same in real pods, on a node of the lab, until make lab-down.
app-node: build postgres node
	bin/lab up --node $(if $(LAB_DIR),--dir $(LAB_DIR))
	cd lab && go run ./matcher $(if $(LAB_DIR),--dir $(LAB_DIR))

# As root; the node stays until make lab-down.
pods: app-node
	go test -tags pods -v -timeout 30m -run TestPods ./test/attack -lab $(CURDIR)/bin/lab -dir "$$(dirname "$$(bin/lab kubeconfig $(if $(LAB_DIR),--dir $(LAB_DIR)))")"

# As root of machines that QEMU emulates, some 20 minutes; KERNELS has flags,
# such as -run TestKernels/6.1-amd64 or -only TestDrift. Packages with kernels are
# kept in the user's cache.
kernels: qemu
	cd test/kernels && go vet -tags kernels . && go test -tags kernels -v -count=1 -timeout 90m . $(KERNELS)

# As root, some minutes: two replicas share what a cluster gives them, and one is
# killed, upgraded and removed while people and attackers are at work.
ha: build postgres node
	bin/lab build --node >/dev/null
	cd lab/install && go vet -tags ha . && go test -tags ha -v -count=1 -timeout 30m -run TestReplicas .

app-up: postgres
	cd examples/internship-matcher && go run ./cmd/app

# The store is tested on a real PostgreSQL. Internship Matcher keeps its data in
# one, and survives its loss with repmgr and Pgpool-II; on Debian they are installed when missing, and no
# server of them started.
postgres:
	@{ ls /usr/lib/postgresql/*/bin/initdb && command -v repmgr && command -v pgpool; } >/dev/null 2>&1 || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-common iproute2 && \
	    sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql repmgr pgpool2; } || \
	  echo "make: no PostgreSQL, repmgr or Pgpool-II found: tests of databases and of Internship Matcher will be skipped"

# The kernel side of the sensor is compiled anew and compared; on Debian the
# compiler is installed when missing.
clang:
	@{ command -v clang && [ -e /usr/include/bpf/bpf_helpers.h ]; } >/dev/null 2>&1 || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends clang llvm libbpf-dev; } || \
	  echo "make: no clang or libbpf headers found: the sensor's kernel side will not be compiled anew"

# The lab's node needs these to be built and to run; on Debian they are installed
# when missing.
node:
	@{ command -v nft && command -v ip && command -v gcc && pkg-config --exists libseccomp; } >/dev/null 2>&1 || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nftables iproute2 gcc libc6-dev pkg-config libseccomp-dev; } || \
	  echo "make: no nft, ip, gcc or libseccomp found: the lab's node will not be built or not start"

# The page is tested in a real Chromium; on Debian it is installed when missing.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } || \
	  echo "make: no Chromium found: the browser tests will be skipped"

# Rules and dashboards are tried in a real Prometheus; on Debian it is installed
# when missing, and its service not started.
prometheus:
	@{ command -v prometheus && command -v promtool; } >/dev/null 2>&1 || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    { [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d && trap 'rm /usr/sbin/policy-rc.d' EXIT; }; } && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus; } || \
	  echo "make: no Prometheus found: its rules and dashboards will not be tried"

# What the agent asks a container runtime is asked of a real one, with state and
# socket of its own; on Debian it is installed when missing.
containerd:
	@{ command -v containerd && command -v runc && command -v ctr; } >/dev/null 2>&1 || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends containerd runc; } || \
	  echo "make: no containerd found: tests with real containers will be skipped"

# Machines with other kernels; on Debian what emulates them is installed when missing.
qemu:
	@{ command -v qemu-system-x86_64 && command -v qemu-system-aarch64 && command -v busybox && command -v mke2fs && command -v xz; } >/dev/null 2>&1 || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 qemu-system-arm busybox-static e2fsprogs xz-utils debian-archive-keyring; } || \
	  echo "make: no QEMU, busybox, mke2fs or xz found: no machines with other kernels"

clean:
	rm -rf bin
