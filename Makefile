# Every target is one call; what it does is written in the script it calls.

.DEFAULT_GOAL := help
.PHONY: help demo test test-full deb bench

help:
	@echo 'make demo       a cluster, Git and gitopsd on this machine, and the loop shown with timings'
	@echo 'make test       everything that must hold: format, lints, docs, unit tests, tests on a real control plane'
	@echo 'make test-full  the same and what takes longer'
	@echo 'make bench      the figures, with kubectl apply of the same objects beside them'
	@echo 'make deb        the Debian package, in dist/ (ARCH=arm64 for the other one)'

demo:
	@tests/demo/run.sh

test:
	@tests/run.sh

test-full:
	@tests/run-full.sh

bench:
	@tests/bench/run.sh

deb:
	@debian/build.sh $(ARCH)
