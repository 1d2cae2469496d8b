"""What is reverse mode, and what does checkpointing trade?

Question: how does a tape find the gradients of a formula, what must it keep for that, and what is
it worth to keep less?
Theory says: of L = (w x - y)^2 at w, x, y = 3, 2, 5, L = 1 and dL/dw = 2 (w x - y) x = 4, however
L is written. One backward pass gives the gradient of any number of inputs; it costs about twice the
forward, for a matmul has two others as its rules; and it reads what the forward computed, so memory
grows with depth, unless some of it is computed again.
Run: python experiments/lesson.py (the same as ckpt lesson)
Found: as the theory says. Forward mode needs 100 passes for 100 inputs, reverse mode one. An MLP's
backward takes 1.00 times its forward with one layer (nobody asks for the gradient of the data),
1.90 times with 10 and 1.99 times with 100. 100 small layers peak at 12.8 MiB as predicted; sqrt
segments bring that to 2.63 MiB for 27 % more FLOPs a step, three slots of revolve to 0.78 MiB for
2.6 times the FLOPs, with the same gradients to the bit.
"""

from __future__ import annotations

from ckpt.lesson.lesson import lesson

if __name__ == "__main__":
    lesson()
