"""Reference agents for UGST-v0, one file each: random, handcrafted, PPO, and how to evaluate them side by side."""
