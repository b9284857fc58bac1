# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The loss landscape of two small nets
#
# A ConvNet and a ResNet-18 are trained for a moment and then looked at: on three planes, by their Hessian's spectrum, one step
# uphill (SAM), and along paths to a second net. Everything is done by `lla_pipeline.py`; what it writes stays in
# `results/demo_notebook`, and a cell that is run again reads it from there.
#
# As it stands this takes some minutes on two cores, on scikit-learn's digits, which need no download. `SMALL = False` takes the
# settings for CIFAR-10, which want a GPU and the data ([where they go](../../docs/DATA_LOADING.md)).

# %%
import json
import sys
from pathlib import Path

from IPython.display import Image, Markdown, display

HERE = next(place for place in (Path.cwd(), *Path.cwd().glob("experiments/Hessian*")) if (place / "lla_pipeline.py").exists())
sys.path.insert(0, str(HERE))

import lla_pipeline as lla  # noqa: E402

from taskshift.pipeline.summary import compared, comparison, summary_table  # noqa: E402

SMALL = True
RESULTS = HERE / "results" / "demo_notebook"
SCALE = (
    "data=digits",
    "batch_size=32",
    "lla.training.epochs_short=4",
    "lla.evaluation_data.eval_batch_size=128",
    "lla.planes.grid_resolution=21",
) if SMALL else ("data=cifar10",)  # fmt: skip


def prepared(name, config, *overrides, **elsewhere):
    return lla.prepare_data_and_models(HERE / "cfg" / config, RESULTS / name, *SCALE, *overrides, **elsewhere)


def show(*pictures, width=480):
    for picture in pictures:
        display(Image(str(picture), width=width))


# %% [markdown]
# ## A net, trained for a moment
#
# An untrained net has no minimum to look at. Ten snapshots are kept along the way. The ConvNet has batch norm here, so that it
# can be left in and out below.

# %%
convnet = prepared("convnet", "config.yaml", "net.norm=batch")
print(convnet.provenance)

# %% [markdown]
# ## Three planes
#
# *Random*: Gaussian directions, filter-normalised: each filter of a direction is as long as the net's own (Li et al. 2018).
# *Hessian*: the eigenvectors of its two largest eigenvalues, each as long as the whole net, so that one unit is the same relative
# distance. *Trajectory*: the principal axes of the snapshots, with the way that training took.

# %%
show(*(lla.plot_plane(convnet, kind) for kind in ("random", "hessian", "trajectory")))

# %% [markdown]
# The Hessian's plane is the steepest there is, and shows the smallest part of the net's surroundings; the random one looks
# harmless, as almost all directions of a high-dimensional space are flat. The axes by themselves:

# %%
axes = lla.get_hessian_axes(convnet)
print(f"eigenvectors: cosine between them {float(axes[0] @ axes[1] / axes[0].norm() / axes[1].norm()):.1e}")

# %% [markdown]
# ### Batch norm and biases left out
#
# The same net, brought along as a file, with random axes that leave norm layers and biases where they are.

# %%
checkpoints = RESULTS / "convnet" / "run" / "checkpoints"
without = prepared(
    "convnet_without_bn_and_bias",
    "config.yaml",
    "net.norm=batch",
    "lla.planes.bn.exclude_bn_and_bias=true",
    checkpoint=checkpoints / "task_0000.pt",
    trajectory=sorted((checkpoints / "trajectory" / "task_0000").glob("step_*.pt")),
)
show(*(lla.plot_plane(without, kind) for kind in ("random", "hessian", "trajectory")))

# %% [markdown]
# The Hessian's and the trajectory's axes are what they are; only the random plane changes. Highest losses on it:

# %%
planes = {"in": convnet.numbers("planes"), "out": without.numbers("planes")}
display(Markdown("| batch norm and bias | random | Hessian | trajectory |\n|---|---:|---:|---:|\n" + "\n".join(
    f"| {how} | " + " | ".join(f"{found[f'planes/{kind}/max_loss']:.3g}" for kind in ("random", "hessian", "trajectory")) + " |"
    for how, found in planes.items())))  # fmt: skip

# %% [markdown]
# ## The spectrum of the Hessian
#
# The largest eigenvalues by Lanczos, the trace by Hutchinson's estimate, the whole density by stochastic Lanczos quadrature.

# %%
spectrum = lla.compute_spectrum(convnet)
for name in ("top_eigenvalue_1", "top_eigenvalue_2", "bottom_eigenvalue_1"):
    print(f"{name:22} {spectrum[f'spectrum/{name}']:.4g}")
print(f"{'trace':22} {spectrum['spectrum/trace']:.4g} ± {spectrum['spectrum/trace_standard_error']:.2g}")
show(convnet.picture("spectrum", "esd.png"))

# %% [markdown]
# ## One step uphill
#
# Beside the plain loss on the Hessian's plane, the loss after one step of 5 % of the parameters' norm along the gradient: what
# SAM looks at.

# %%
show(lla.plot_sam_surface(convnet), width=900)

# %% [markdown]
# ## The way to a second net
#
# A second net, trained alike from another seed. On the straight line between the two the loss rises; a Bézier curve with one
# bend, trained for a low loss along it (Garipov et al. 2018), goes around.

# %%
modes = lla.fit_mode_connectivity(convnet)
print(f"barrier before: {modes['mode_connectivity/linear_barrier']:.3g}, after: {modes['mode_connectivity/curve_barrier']:.3g}")
show(lla.plot_mode_curve(convnet))

# %% [markdown]
# ## Rank and plasticity
#
# How the features' rank drops from snapshot to snapshot, beside the change of the loss.

# %%
ranks = lla.track_ranks(convnet)
print(f"mean approximate rank {ranks['rank/approximate_rank']:.3g} of at most {ranks['rank/num_examples']:.0f}")
for name in ("pearson", "spearman"):
    if f"coupling/{name}" in ranks:
        print(f"{name}: {ranks[f'coupling/{name}']:.2f}")
show(convnet.picture("coupling", "coupling.png"), width=700)

# %% [markdown]
# ## A ResNet-18 beside it
#
# The same for a ResNet-18, a narrow one where `SMALL`.

# %%
resnet = prepared("resnet", "config_resnet.yaml", *(["net.width=8", "lla.training.lr=0.02"] if SMALL else []))
resnet.analyse(resnet.plan.evaluators("all"))
show(lla.plot_plane(resnet, "hessian"), lla.plot_plane(resnet, "trajectory"), lla.plot_mode_curve(resnet))

# %% [markdown]
# ## What was found

# %%
tables = [summary_table(net) for net in (convnet, resnet)]
display(Markdown(comparison(tables)))

# %%
display(Markdown(compared(*tables)))
(RESULTS / "comparison.json").write_text(json.dumps(tables, indent=2) + "\n")
