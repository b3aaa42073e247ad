# Every target does its own set-up on Debian bookworm as root; Go >= 1.25 is the one thing that must be there.
.DEFAULT_GOAL := help
SHELL := /bin/bash
JOBS ?= $(shell nproc)
PRESET ?= release
BIN := build/e2e/bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: ## boot a two-node Kubernetes on this machine and show a volume follow its pod
	@e2e/setup/tools.sh cluster
	@$(BIN)/cluster --name quickstart preflight quickstart
	@e2e/setup/packages.sh build cluster image
	@$(MAKE) --no-print-directory configure
	@cmake --build build/release -j $(JOBS) --target collage collage-mount
	@e2e/setup/tools.sh
	@e2e/setup/quickstart.sh

quickstart-down: ## remove what quickstart made and changed
	@e2e/setup/quickstart.sh down

test: ## all tests: unit tests, then a real two-node Kubernetes
	@e2e/setup/test.sh unit e2e

unit: ## unit tests only
	@e2e/setup/test.sh unit

e2e: ## tests on a real two-node Kubernetes only
	@e2e/setup/test.sh e2e

build: ## compile everything (PRESET=release, debug, asan or tsan)
	@e2e/setup/packages.sh build
	@$(MAKE) --no-print-directory configure
	@cmake --build build/$(PRESET) -j $(JOBS)

configure:
	@mkdir -p build
	@cmake --preset $(PRESET) > build/configure-$(PRESET).log 2>&1 || { cat build/configure-$(PRESET).log; exit 1; }

cuts: ## every cut of the wire at every write of the operator, on a real two-node Kubernetes (make test makes a quarter)
	@e2e/setup/test.sh cuts

bench: ## measure Collage beside the floor on one API server; writes build/bench/results.json and .svg
	@e2e/bench/run.sh

mutants: ## take each guard out of a copy of the program and demand that a test notices (MUTANT=regular expression for some)
	@e2e/setup/packages.sh build cluster
	@e2e/setup/tools.sh
	@cd e2e && go run ./mutants -root .. -jobs $(JOBS) -run "$(MUTANT)"

asan: ## unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@PRESET=asan e2e/setup/test.sh unit

tsan: ## unit tests under ThreadSanitizer
	@PRESET=tsan e2e/setup/test.sh unit

asan-e2e: ## the tests on a real cluster, with programs built with AddressSanitizer and UndefinedBehaviorSanitizer
	@PRESET=asan e2e/setup/test.sh e2e

tsan-e2e: ## the tests on a real cluster, with programs built with ThreadSanitizer
	@PRESET=tsan e2e/setup/test.sh e2e

fuzz: ## run each fuzzer for FUZZ_SECONDS (60) and say what it found
	@e2e/setup/packages.sh build fuzz
	@$(MAKE) --no-print-directory configure PRESET=fuzz
	@cmake --build build/fuzz -j $(JOBS) --target fuzzers
	@e2e/setup/fuzz.sh

lint: ## clang-format, clang-tidy, gofmt, go vet, helm lint
	@e2e/setup/lint.sh

image: ## build both container images: make image IMAGE=registry.example.com/collage:0.1.0
	@e2e/setup/packages.sh build image
	@$(MAKE) --no-print-directory configure PRESET=release
	@cmake --build build/release -j $(JOBS) --target collage collage-mount
	@IMAGE="$(IMAGE)" e2e/image/build.sh

push: image ## build both images and push them to their registry: make push IMAGE=registry.example.com/collage:0.1.0
	@IMAGE="$(IMAGE)" e2e/image/push.sh

deploy: ## install on a cluster of yours: make deploy CONTEXT=name IMAGE=registry.example.com/collage:0.1.0
	@CONTEXT="$(CONTEXT)" IMAGE="$(IMAGE)" e2e/setup/deploy.sh

clean: ## remove everything that was built (a running quickstart cluster first)
	@if [ -x $(BIN)/cluster ]; then $(MAKE) --no-print-directory quickstart-down KEEP=packages; fi
	@[ ! -d build ] || find build -mindepth 1 ! -path build/e2e ! -path build/e2e/installed-packages -delete

.PHONY: help quickstart quickstart-down test unit e2e build configure bench mutants cuts fuzz asan tsan asan-e2e tsan-e2e lint image push deploy clean
