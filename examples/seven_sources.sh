#!/usr/bin/env bash
# From a little raw data of each of the paper's seven sources to a small model trained on them with Table 1's shares.
#
#   bash examples/seven_sources.sh RAW [WORK]
#
# RAW   a folder with commoncrawl/ (WARC), c4/ (JSON lines), wikipedia/ (XML dump), books/ (Project Gutenberg), arxiv/ (LaTeX),
#       stackexchange/ (Posts.xml), and possibly github/ (repositories); without that, an installed package of the Apache
#       licence stands in.
# WORK  where everything goes (default: seven_sources). Run the same command again after an interruption: every step skips what
#       is done.
#
# Needs the extra `data`. On two cores it takes a few minutes.
set -euo pipefail

raw=$(realpath "${1:?usage: bash examples/seven_sources.sh RAW [WORK]}")
work=$(realpath -m "${2:-seven_sources}")
python=${PYTHON:-python}
llama_jax() { "$python" -m llama_jax "$@"; }
sources="commoncrawl c4 github wikipedia books arxiv stackexchange"
mkdir -p "$work"

# GitHub: source trees with their licences
repositories=$raw/github
if [ ! -d "$repositories" ]; then
    repositories=$work/repositories
    if [ ! -d "$repositories" ]; then
        "$python" - "$repositories.part" <<'PYTHON'
import importlib.metadata, pathlib, shutil, sys

package = importlib.metadata.distribution("requests")  # Apache 2.0
target = pathlib.Path(sys.argv[1]) / "requests"
shutil.rmtree(target.parent, ignore_errors=True)
for file in package.files:
    if file.suffix == ".py" or file.name.startswith("LICENSE"):
        (target / file.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.locate(), target / file.name)
PYTHON
        mv "$repositories.part" "$repositories"
    fi
fi

# 1. documents of each source; counts are in $work/documents/SOURCE/report.json
for source in $sources; do
    input=$raw/$source
    if [ "$source" = github ]; then input=$repositories; fi
    echo "== clean $source"
    llama_jax clean --source "$source" --input "$input" --output "$work/documents/$source"
done

# 2. one tokenizer for all
if [ ! -f "$work/tokenizer/tokenizer.model" ]; then
    echo "== tokenizer"
    llama_jax tokenizer train --input "$work"/documents/* --output "$work/tokenizer" --vocab_size 1024
fi

# 3. token shards of each source
for source in $sources; do
    echo "== prepare $source"
    llama_jax prepare --input "$work/documents/$source" --tokenizer "$work/tokenizer" --output "$work/data/$source"
done

# 4. training with the shares of Table 1; the table at the end says what was read of each source
echo "== train"
cd "$work"  # the config reads data/SOURCE
llama_jax train --config data/seven --workdir "$work/run" --training.num_steps 200 --training.heldout_every 100 \
    --checkpoint.every 100
