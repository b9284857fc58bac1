"""What the distribution `taskshift` holds and needs; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

PACKAGES = find_namespace_packages("src", include=["loss_landscape*", "taskshift*", "hydra_plugins.*"])

EXTRAS = {
    "train": [
        "torchvision>=0.24",
        "hydra-core>=1.3.8,<1.4",
        "omegaconf>=2.3,<2.4",
        "pydantic>=2.7,<3",
        "wandb>=0.31,<0.32",  # its private switches keep all but numbers back
        "submitit>=1.5.2,<2",
        "hydra-submitit-launcher>=1.2,<2",
        "scikit-learn>=1.4",
        "duckdb>=1.0",
    ],
    "sweepers": ["hydra-optuna-sweeper>=1.3,<1.4"],
    "writer": ["duckdb>=1.0"],
    "callbacks": ["duckdb>=1.0", "lightning>=2.4", "transformers>=4.56", "accelerate>=1.1"],
    "optimizers": ["pytorch_optimizer>=3.5"],
    "curvature": ["curvlinops-for-pytorch>=3.0,<4"],
    "bench": ["loss-landscapes>=3.0.6,<4", "pyhessian>=0.1", "hessian-eigenthings>=1.0.0a5", "curvlinops-for-pytorch>=3.0,<4"],
    "docs": ["jupytext>=1.16", "nbformat>=5.9", "nbclient>=0.10", "ipykernel>=6.29"],
    "zoo": ["torchvision>=0.24", "transformers>=5.0,<6", "timm>=1.0.20,<2"],
    "dev": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.5",
        "ruff>=0.6",
        "import-linter>=2.0",
        "mypy>=2.0",
        "pandas>=2",
        "curvlinops-for-pytorch>=3.0,<4",
    ],
}


class BuildWithConf(build_py):
    """Puts conf/ into the package; an editable install reads it where it is.

    Not by `package_dir`: with a second entry there an editable install hides every other Hydra plugin.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_tree("conf", str(Path(self.build_lib, "taskshift", "conf")))


setup(
    name="taskshift",
    version="0.1.0",
    description="Train networks through task shifts; measure their plasticity and their loss landscape.",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=PACKAGES,
    package_data={"loss_landscape": ["py.typed", "page/assets/*", "page/assets/script/*"]},
    cmdclass={"build_py": BuildWithConf},
    install_requires=["torch>=2.9", "numpy>=1.26", "scipy>=1.11.1", "matplotlib>=3.8", "rich>=13", "jinja2>=3.1"],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["taskshift = taskshift.cli:main", "loss_landscape = loss_landscape.cli.command:main"]},
)
