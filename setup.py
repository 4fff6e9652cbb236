"""What pyproject.toml cannot say: the recipes of `configs/` lie inside the installed package, `mmpretrain/recipes`."""

from setuptools import find_packages, setup

RECIPES = ["configs", *(f"configs.{name}" for name in find_packages("configs"))]

INSTALLED_AS = {f"mmpretrain.recipes.{name}": name.replace(".", "/") for name in RECIPES}

setup(packages=[*find_packages(include=["mmpretrain*", "data_prep*"]), *INSTALLED_AS], package_dir=INSTALLED_AS)
