#!/usr/bin/env bash
# The six commands on the bundled LeNet-5 and the bundled digits: from a trained network to a smaller, verified, faster
# one. Everything is written into demo-out/ at the top of the project, which is emptied first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=demo-out
rm -rf "$out"
mkdir "$out"

run() {
  printf '\n$ %s\n' "$*"
  "$@"
}

run compress analyze sample_models/lenet5.pt --sensitivity --pattern channel --report $out/analyze.html
run compress prune sample_models/lenet5.pt --method admm --pattern channel --ratio 13x --distill 0.5 -o $out/lenet5.pruned.pt \
  --report $out/prune.html
run compress retrain $out/lenet5.pruned.pt --teacher sample_models/lenet5.pt --epochs 5 --lr 0.0003
run compress compact $out/lenet5.retrained.pt --report $out/compact.html
run compress export sample_models/lenet5.pt -o $out/dense.onnx
run compress export $out/lenet5.compact.pt -o $out/model.onnx
run compress bench $out/dense.onnx $out/model.onnx --accuracy --data sample_models/mnist_5k.npz \
  --require 'speedup>=1.5' --require 'ratio>=13' --report $out/bench.html
