# The front door. Everything is built by Meson; each target first installs what it needs (Debian, as root or with
# sudo) or names what is missing.

BUILD   ?= build
ASAN    ?= build-asan
PREFIX  ?= /usr/local
DESTDIR ?=
SETUP    = tools/setup

.PHONY: all demo test check bench fuzz model soak coverage install uninstall clean help

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) product examples

help:
	@sed -n 's/^## //p' Makefile

## make            build, the examples too
## make demo       build, start three kernels, launch a carrier through all of them
## make test       the whole suite, plain and with the address and undefined-behaviour sanitizers
## make check      format, both compilers, static analysis, sanitizers, valgrind on unit tests, tos-vm and tosd
## make model      the hand-off, searched for two copies, for none, and for doubts that never end; Commit, for halves
## make coverage   which lines of src/ the unit tests and the fuzz targets' corpus run; below 90 % of wire, core or link fails
## make bench      the figures of doc/performance.md, each beside its yardstick
## make fuzz       libFuzzer and AFL++ on every target of tests/fuzz, FUZZ_SECONDS each (default 60)
## make soak       the long tests, TOS_SOAK_SECONDS in all (default 600), besides what make test runs
## make install    into PREFIX (default /usr/local), below DESTDIR
## make uninstall  removes what the last make install of this folder put there; domains and their keys stay
## make clean      remove what was built

$(BUILD)/build.ninja: meson.build meson_options.txt
	@$(SETUP) build
	@[ -f $@ ] || meson setup $(BUILD) --prefix=$(PREFIX) >$(BUILD)-setup.log 2>&1 || { cat $(BUILD)-setup.log; exit 1; }
	@rm -f $(BUILD)-setup.log; touch $@

demo: all
	@tools/demo $(BUILD)

test:
	@$(SETUP) build test
	@tools/test $(BUILD) $(ASAN)

check:
	@$(SETUP) build test check
	@tools/check

bench: all
	@$(SETUP) build test bench
	@tools/bench $(BUILD)

fuzz:
	@$(SETUP) build test check fuzz
	@tools/fuzz $${FUZZ_SECONDS:-60}

model:
	@$(SETUP) build check
	@tools/model

coverage:
	@$(SETUP) build test coverage
	@tools/coverage

soak:
	@$(SETUP) build test
	@tools/soak $(BUILD)

install: $(BUILD)/build.ninja
	@meson configure $(BUILD) --prefix=$(PREFIX)
	@ninja -C $(BUILD) installable
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild --quiet --tags runtime,man,devel,doc

uninstall:
	@[ -f $(BUILD)/meson-logs/install-log.txt ] || { echo "nothing was installed from $(BUILD)" >&2; exit 1; }
	@ninja -C $(BUILD) uninstall >/dev/null
	@rm $(BUILD)/meson-logs/install-log.txt

clean:
	rm -rf $(BUILD) $(ASAN) build-* demo
