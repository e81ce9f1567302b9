"""2 INFERENCE: one pass over this rank's blocks of the pool, for what the acquisition needs.

scoring.py     the loop; undisturbed.py: modes, random streams and Trainer are left as they were found
model_call.py  what a plain module says, and where its embedding is; calling.py how it is called;
               misreading.py whether that can be classes
posteriors.py  how passes become the fields of `Outputs`: one pass
committee.py   one of each of several models
mc_dropout.py  many, with dropout on; look.py, dropout.py, prefix.py, masks.py, recurrent.py, layout.py: how
statistics.py  what is kept of many passes
summary.py     what is kept of each sample; kept_rows.py where; given_embeddings.py what needs no pass
sharded.py     modules that processes hold parts of: passes in step; every_pass.py: many passes of such
"""

from lightning_al.inference.committee import Committee
from lightning_al.inference.mc_dropout import MCDropout
from lightning_al.inference.outputs import Outputs
from lightning_al.inference.posteriors import BatchPosterior, Posterior, SinglePass
from lightning_al.inference.summary import Summary

__all__ = ["BatchPosterior", "Committee", "MCDropout", "Outputs", "Posterior", "SinglePass", "Summary"]
