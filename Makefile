# make demo    the environment, the default data set, vocabulary, training, evaluation, one sample
# make test    the environment and all tests
# make lint    ruff: checks and formatting
# make clean   delete the environments, the default data set and all runs
# make test-oldest    all tests with the oldest Python and packages that requirements.txt allows

PYTHON ?= python3
OLDEST_PYTHON ?= python3.10
RUN = .venv/bin/python
SCENES = data/scenes
DEMO = runs/demo

.PHONY: demo test test-oldest lint clean

demo: .venv/installed $(SCENES)/annotations/instances_val.json
	$(RUN) build_vocab.py --annotations $(SCENES)/annotations/instances_train.json --vocab_path $(SCENES)/vocab.pkl
	$(RUN) train.py --output_dir $(DEMO)
	$(RUN) evaluate.py --checkpoint $(DEMO)/best.pt
	$(RUN) sample.py $(SCENES)/images/val/scene_val_000027.jpg --checkpoint $(DEMO)/best.pt --output $(DEMO)
	@echo "checkpoint $(DEMO)/best.pt, metrics $(DEMO)/metrics.json, log $(DEMO)/evaluate.log, picture $(DEMO)/slides/scene_val_000027.jpg.png"

$(SCENES)/annotations/instances_val.json: | .venv/installed
	$(RUN) data/make_scenes.py --output_dir $(SCENES)

test: .venv/installed-dev
	$(RUN) -m pytest -q -n auto --dist worksteal

test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest -q -n auto --dist worksteal

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt | .venv/bin/python
	$(RUN) -m pip install -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt requirements.txt $(wildcard requirements/*.txt) | .venv/bin/python
	$(RUN) -m pip install -r requirements-dev.txt
	touch $@

.venv-oldest/installed: requirements-oldest.txt requirements-dev.txt requirements.txt $(wildcard requirements/*.txt)
	$(OLDEST_PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install -r requirements-dev.txt -c requirements-oldest.txt
	touch $@

clean:
	rm -rf .venv .venv-oldest runs $(SCENES)
