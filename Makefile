# Each target sets up .venv first; when nothing changed, that takes no time. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
BIN := .venv/bin

# The ROS 2 wheels in .venv find their own libraries; those of another installation must not come first.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: help setup demo bench test lint format docs clean

help:
	@echo "make demo    simulated camera, decaf_node and three queries; writes demo_out/"
	@echo "make bench   held-out scores, ablations, the node's latency and memory, SAM 2 alone, rollout and tracker against references"
	@echo "make test    the test suite"
	@echo "make lint    ruff, mypy and the direction of imports"
	@echo "make format  rewrite the sources in ruff's format"
	@echo "make docs    the tables of parameters and topics in docs/, from the code and a running node"
	@echo "make clean   remove .venv and everything generated"

setup:
	@$(PYTHON) tools/setup_env.py

demo: setup
	$(BIN)/decaf demo

bench: setup
	$(BIN)/decaf bench
	$(BIN)/python -m tools.embedded_sam2.evaluate
	taskset -c 0 $(BIN)/decaf bench --parts rollout
	$(BIN)/decaf bench --parts tracker

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python tools/make_docs.py

clean:
	rm -rf .venv build install log demo_out *.egg-info
