# Recipes; each sets up what it needs. `just` alone checks and tests.

python := ".venv/bin/python"
pip := python + " -m pip install -q --disable-pip-version-check -c constraints.txt"
# An index may be slow: pip itself gives up after a quarter of a minute without a byte.
export PIP_DEFAULT_TIMEOUT := env("PIP_DEFAULT_TIMEOUT", "60")

default: check test

# Install llem, its torch extra, Dask, the development tools and the servers of the tests into .venv, when their list has changed.
setup:
    @test .venv/.installed -nt pyproject.toml && test .venv/.installed -nt constraints.txt || { \
        echo "installing llem, torch and the tools of its tests into .venv: some minutes, once" >&2; \
        PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt {{pip}} -e '.[torch,dev,serving,dask,remote]'; }
    @touch .venv/.installed

# Measure the default plan on this machine and print the result.
measure *options: setup
    .venv/bin/llem measure {{options}}

# The fast tests, on two cores: three processes, because some of them wait for what they measure.
test *options: setup
    {{python}} -m pytest -q -n 3 -m "not slow" {{options}}

# The slow tests, on two cores: four processes, because most of them wait for what they measure.
test-slow *options: setup
    {{python}} -m pytest -q -n 4 -m slow {{options}}

# Odd inputs for every command, a minute each, and five thousand odd experiments: half an hour of two cores, and each test says how far it is.
fuzz *options: setup
    LLEM_FUZZ_SECONDS=60 LLEM_ODD_CASES=5000 {{python}} -m pytest -q -n 2 --dist=load -m slow -s tests/fuzz tests/projections/test_odd_stores.py {{options}}

# Small random faults, one at a time, that the tests of a room should notice: just mutants --room results --count 70 --seed 1
mutants *options: setup
    {{python}} -m tests.mutants {{options}}

# The modules that carry the total energy from NVML's counter to the screen of `llem show`.
figure-path: setup
    {{python}} -m tests.figure_path

# The fast tests with the newest packages that pyproject.toml permits.
test-newest *options: setup
    {{python}} -m tests.environments newest {{options}}

# The fast tests with the lowest versions that pyproject.toml names.
test-lowest *options: setup
    {{python}} -m tests.environments lowest {{options}}

# What needs no torch, under every other supported Python at hand.
test-pythons *options: setup
    {{python}} -m tests.environments pythons {{options}}

# Lint, types and imports.
check: lint types imports

# Style and likely mistakes.
lint: setup
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .

# Static types of both packages.
types: setup
    .venv/bin/mypy

# The one-way imports.
imports: setup
    .venv/bin/lint-imports

# Put the code into its usual format.
fmt: setup
    .venv/bin/ruff check --fix .
    .venv/bin/ruff format .

# Write constraints.txt: the newest permitted version of every package, for every supported Python; amdsmi has that of the ROCm it finds.
lock:
    {{pip}} uv
    .venv/bin/uv pip compile -q --universal --python-version 3.11 --all-extras --no-emit-package amdsmi --upgrade --no-header --no-annotate pyproject.toml -o constraints.txt

# Run a benchmark: harness, append, rebuild, size, seal, query, aggregate, crash, sampler, meter, startup, regions, load, load_times, served_command, ranks.
bench name *options: setup
    {{python}} -m benchmarks.{{name}} {{options}}

# Run any command under a simulated NVIDIA driver: just simulated-gpu llem doctor
simulated-gpu *command: setup
    {{python}} -m tests.simulated_nvml -- {{command}}

# Measure on a real NVIDIA GPU, a served model too, calibrate its sensors, and keep what was seen under docs/validation.
gpu-check *options:
    {{python}} -m benchmarks.gpu_check {{options}}

# llem beside aiperf, guidellm and vllm bench, each in an environment of its own: just compare-clients --rounds 3
compare-clients *options: setup
    {{python}} -m benchmarks.compare_clients {{options}}

# Spark and Ray seal a store, they and Daft read it, in an environment of their own; Spark needs a Java runtime.
other-engines *options: setup
    {{python}} -m benchmarks.other_engines {{options}}

# Measure vLLM on this CPU, in an environment of its own; options are those of llem measure.
vllm-cpu *options: setup
    {{python}} -m benchmarks.vllm_cpu {{options}}

# Make every generated file anew.
goldens: schema reference figures kept-figures screens

# Publish the JSON Schema of every event version.
schema: setup
    {{python}} -m llem_events.publish_schema

# Look at every command in a terminal and keep what it shows; all sizes and kinds of terminal take minutes.
screens *options: setup
    {{python}} -m pytest -q -n 0 tests/cli/test_screens.py --update-goldens {{options}}

# Run the session of the README and the notebook on this machine and keep what they show.
session: setup
    {{python}} -m pytest -q -n 0 tests/test_readme.py tests/test_notebook_page.py --update-goldens

# Keep the figures of some experiments, and exports in CSV, as they are now.
kept-figures: setup
    {{python}} -m pytest -q -n 0 tests/projections/test_kept_figures.py tests/results/test_kept_results.py tests/export/test_csv.py --update-goldens

# Write the page of figures from their list.
figures: setup
    {{python}} -m llem.results.figures > docs/figures.md

# Write the command-line page from the commands.
reference: setup
    {{python}} -m llem.cli.reference > docs/cli.md

# Build the documentation as a site, in build/website/site; a warning is an error.
site: setup
    {{python}} -m website
