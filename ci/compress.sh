#!/usr/bin/env bash
# What action.yml runs: prune, compact, export, and gates on the way. Everything it is told comes in variables, and none
# of them is evaluated as shell.
set -euo pipefail
set -f  # a * in a requirement is no file name

out=${OUT:-compressed}
mkdir -p "$out"

requirements=()
for gate in ${REQUIRE:-}; do requirements+=(--require "$gate"); done
benchmarks=()
for gate in ${BENCH:-}; do benchmarks+=(--require "$gate"); done

# Quotes in OPTIONS are those of a command line; xargs takes them apart without running anything.
options=()
while IFS= read -r -d '' word; do options+=("$word"); done < <(printf '%s' "${OPTIONS:-}" | xargs -r printf '%s\0')

# Data and task that are code run in the later steps too, because they are named there; never what a checkpoint remembers.
named=()
for i in "${!options[@]}"; do
  case ${options[i]} in
    --data | --task) named+=("${options[i]}" "${options[i + 1]:-}") ;;
    --data=* | --task=*) named+=("${options[i]}") ;;
  esac
done

compress prune "$MODEL" --ratio "${RATIO:-2x}" ${options[@]+"${options[@]}"} ${requirements[@]+"${requirements[@]}"} \
  --force -o "$out/pruned.pt" --report "$out/prune.html" --json -q > "$out/prune.json"
compress compact "$out/pruned.pt" ${named[@]+"${named[@]}"} --force -o "$out/small.pt" --json -q > "$out/compact.json"
compress export "$out/small.pt" ${named[@]+"${named[@]}"} --force -o "$out/small.onnx" --json -q > "$out/export.json"

if [ ${#benchmarks[@]} -gt 0 ]; then
  dense=$MODEL
  case $MODEL in
    *.onnx) ;;
    # The masked checkpoint is the dense network: it has its size, and needs no --arch any more.
    *) dense=$out/dense.onnx; compress export "$out/pruned.pt" ${named[@]+"${named[@]}"} --force -o "$dense" --json -q > "$out/dense.json" ;;
  esac
  case $BENCH in *accuracy*) benchmarks+=(--accuracy ${named[@]+"${named[@]}"}) ;; esac
  compress bench "$dense" "$out/small.onnx" "${benchmarks[@]}" --json -q > "$out/bench.json"
fi

if [ -n "${GITHUB_OUTPUT:-}" ]; then
  printf 'model=%s\ncheckpoint=%s\n' "$out/small.onnx" "$out/small.pt" >> "$GITHUB_OUTPUT"
fi
