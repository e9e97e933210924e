"""Which memory a model runs in: the machine's sizes and rates, the planner, and what carries a plan out.

`import engine.memory` loads no torch.
"""
