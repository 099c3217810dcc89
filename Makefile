# Builds the module for one of several nginxes, and tests it with them.
# `make help` lists what there is to make; nginx-src/ says what NGINX may be.

MODULE := ngx_http_upstream_diag_module

# release, debian or custom; custom is the tree that NGINX_SOURCE_DIR and/or
# NGINX_BUILD_DIR point at.
NGINX ?= $(if $(NGINX_SOURCE_DIR)$(NGINX_BUILD_DIR),custom,release)
# Those that `make test` uses.
NGINXES ?= release debian

# Those that `make bench` uses; words that measure nothing take none.
BENCH_NGINXES = $(if $(filter report -h --help,$(ARGS)),,$(if $(ARGS),$(NGINX),$(NGINXES)))

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
NGINX_DIR := $(TARGET)/nginx/$(NGINX)

# The bindings depend on the nginx, and with them all that is built from them.
# A directory of its own for each keeps a change of NGINX from compiling
# everything again; that of the release is the usual one.
MODULE_TARGET := $(if $(filter release,$(NGINX)),$(TARGET),$(TARGET)/build-$(NGINX))

# For the shell: the paths of an nginx, as setup has written them.
with-nginx = set -a && . '$(TARGET)/nginx/$(1)/env' && set +a

# Recipes share target/, where cargo would only have them wait for each other.
.NOTPARALLEL:

.PHONY: help setup build demo bench test test-nginx lint unit docs clean-nginx

help: ## List what can be made
	@echo 'make [NGINX=release|debian|custom] TARGET   (NGINX is now $(NGINX))'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

setup: ## Make the nginx ready: packages, sources, configuration, program
	@$(CARGO) run -q --locked -p nginx-setup -- $(NGINX)

# A running nginx may have the old file mapped: it is replaced, never written.
build: setup ## Build the module, and put it next to its nginx in target/nginx/
	$(call with-nginx,$(NGINX)) && $(CARGO) build --release --locked -p $(MODULE) --target-dir '$(MODULE_TARGET)'
	@cp '$(MODULE_TARGET)/release/lib$(MODULE).so' '$(NGINX_DIR)/$(MODULE).so.new'
	@mv -f '$(NGINX_DIR)/$(MODULE).so.new' '$(NGINX_DIR)/$(MODULE).so'

# exec: Ctrl-C reaches a shell too, which would not wait for the demo's end.
demo: build ## Show what the module says about failing upstreams
	@exec env NGINX=$(NGINX) $(CARGO) run -q --locked -p t --bin demo

# Everything is measured with each of NGINXES, and written to bench/; a part of it with NGINX,
# and only shown: make bench ARGS=--help says what parts there are.
bench: ## Measure what the module costs (ARGS=… for a part of it)
	@set -e; for nginx in $(BENCH_NGINXES); do \
	    $(MAKE) --no-print-directory build NGINX=$$nginx; \
	    $(CARGO) run -q --locked -p nginx-setup -- --bench $$nginx; \
	done
	@$(CARGO) run -q --locked -p bench -- $(BENCH_NGINXES) $(ARGS)

test: lint unit ## Everything: lint, unit, and test-nginx with each of NGINXES
	@set -e; for nginx in $(NGINXES); do $(MAKE) --no-print-directory test-nginx NGINX=$$nginx; done

test-nginx: build ## Test the module in the nginx
	@$(CARGO) run -q --locked -p nginx-setup -- --tests $(NGINX)
	NGINX=$(NGINX) $(CARGO) test --locked -p t

# Whatever NGINX is: in the usual directory of cargo, bindings are the release's.
lint: ## Check the format, and what clippy says
	$(CARGO) fmt --all --check
	@$(MAKE) --no-print-directory setup NGINX=release
	$(call with-nginx,release) && $(CARGO) clippy --locked --workspace --all-targets -- -D warnings

unit: ## Test what needs no nginx
	$(CARGO) test --locked -p bench -p diagnosis -p host -p nginx-setup

docs: ## Write what in docs/ is made from the tables in the code
	$(CARGO) run -q --locked -p diagnosis --example docs docs

clean-nginx: ## Remove every nginx built here, and the modules built for others
	rm -rf '$(TARGET)/nginx' '$(TARGET)'/build-*
