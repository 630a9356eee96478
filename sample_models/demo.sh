#!/usr/bin/env bash
# The six commands on the bundled LeNet-5 and the bundled digits: from a trained network to a smaller, verified, faster
# one. Writes into demo-out/ beside the folder this is in (or the folder named as first argument).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
out="${1:-$here/../demo-out}"
rm -rf "$out"
mkdir -p "$out"
model="$here/lenet5.pt"

run() {
  printf '\n$ %s\n' "${*//$here\/..\//}" | sed "s#$here/##g; s#$out/##g"
  "$@"
}

run compress analyze "$model"
run compress prune "$model" --method admm --pattern channel --ratio 13x --distill 0.5 -o "$out/lenet5.pruned.pt"
run compress retrain "$out/lenet5.pruned.pt" --teacher "$model" --epochs 5 --lr 0.0003
run compress compact "$out/lenet5.retrained.pt"
run compress export "$model" -o "$out/dense.onnx"
run compress export "$out/lenet5.compact.pt" -o "$out/model.onnx"
run compress bench "$out/dense.onnx" "$out/model.onnx" --accuracy --data "$here/mnist_5k.npz" \
  --require "speedup>=1.5" --require "ratio>=13"
