"""`mix`: which weights of the streams make the best model? Small proxies on many mixtures, a fit, a proposal, a check.

    runs/<name>-mix/
      <hash>/shards/ train/      a proxy: the run's shards with other weights (links and a manifest), its results
      mix.json  report.html      runs, fit, proposal, confirmation

The idea is RegMix's (Liu et al. 2024, arXiv:2407.01492): the mixture that is best for many small models is best for a
large one. Here the design fills the simplex and the fit is a Gaussian process (cli.surrogate), whose own uncertainty
counts against a proposal; no stream may be read more than EPOCHS times in the final run (Muennighoff et al. 2023,
arXiv:2305.16264: up to four, repeated text is as good as new). Proxies below 15M parameters rank mixtures less well
(Olmix, arXiv:2602.12237: correlation 0.73 at 1M, 0.89 from 15M on). Costs: a training run a proxy; a finished one is
known by its hash and never repeated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cli.options import Overrides, RecipeFile, Result
from cli.sequential import ERROR, verdicts
from cli.surrogate import Fit, Floats, capped, propose, spread_out
from cli.terminal import TrainingView, duration, make_table, messages
from common.errors import RecipeError
from common.files import read_manifest, write_json
from common.runfolder import Row, RunFolder

if TYPE_CHECKING:
    from cli.report.page import Section
    from trainer.config import TrainConfig

EPOCHS = 4.0  # a stream is read at most, in the final run
SMALL = 15_000_000  # parameters below which proxies are less telling
NATURAL, UNIFORM, PROPOSAL = "natural", "uniform", "proposal"


def mix(
    recipe: RecipeFile,
    proxies: Annotated[int, typer.Option(min=6, help="Mixtures to train on, natural and uniform included.")] = 24,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="STREAM", help="Held-out stream to be good at; repeatable; default: all, equally."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the final run, which bound repetition; default: the recipe's.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of natural, uniform and proposal each, at the end.")] = 2,
    overrides: Overrides = None,
) -> Result:
    """Choose the weights of the streams: train small proxies on many mixtures, fit, propose, and check the proposal.

    The recipe's `train` section describes a proxy. What is minimized is the mean of the targets' bits per byte.

    Example: pretrain mix recipes/mine.yaml --proxies 24 --target books --set train.steps=500
    """
    from recipes.load import load_recipe, training_config

    loaded = load_recipe(recipe, overrides or ())
    run = RunFolder(loaded.run)
    manifest = read_manifest(run.shards)
    if manifest is None:
        raise RecipeError(f"{run.shards}: no shards yet; build them with `pretrain corpus {recipe}`")
    config = training_config(loaded).model_copy(update={"prompts": []})
    study = Study(run, manifest, config, tokens or config.steps * config.global_batch_tokens, target or [])
    results = study.run_all(proxies, seeds)
    return Result(results, *_lines(results))


@dataclass(frozen=True)
class Study:
    """The shards whose streams are mixed, what a proxy is, and what it is scored by."""

    run: RunFolder
    manifest: Row
    config: TrainConfig
    tokens: int
    targets: list[str]

    def __post_init__(self) -> None:
        """Raises RecipeError where there is nothing to choose or nothing to choose by."""
        if len(self.streams) < 2:
            raise RecipeError(f"{self.run.shards}: one training stream; a mixture needs several (`tokenize.stream_by`)")
        if not self.held_out:
            raise RecipeError(f"{self.run.shards}: nothing is held out to choose by; set `tokenize.validation`")
        for name in self.targets:
            if name not in self.held_out:
                raise RecipeError(f"--target {name}: no such held-out stream; there are: {', '.join(self.held_out)}")
        if self.limits.sum() < 1:
            least = int(self.sizes.sum() * EPOCHS)
            raise RecipeError(f"--tokens {self.tokens}: {EPOCHS:g} epochs of all streams are {least} tokens")

    @cached_property
    def streams(self) -> list[str]:
        names = (name.partition("/") for name, of in self.manifest["streams"].items() if of["samples"])
        return sorted(name for split, _, name in names if split == "train")

    @cached_property
    def held_out(self) -> list[str]:
        names = (name.partition("/") for name, of in self.manifest["streams"].items() if of["samples"])
        return sorted(name for split, _, name in names if split == "validation")

    @cached_property
    def sizes(self) -> Floats:
        """Tokens of each training stream."""
        samples = [self.manifest["streams"][f"train/{name}"]["samples"] for name in self.streams]
        sizes: Floats = np.array(samples, np.float64) * self.manifest["sequence_length"]
        return sizes

    @cached_property
    def limits(self) -> Floats:
        """The largest share of each stream."""
        limits: Floats = np.minimum(1.0, EPOCHS * self.sizes / self.tokens)
        return limits

    def weights(self, shares: Floats) -> dict[str, float]:
        """The recipe's weights for these shares: factors on the natural ones."""
        factors = (shares / (self.sizes / self.sizes.sum())).tolist()
        return {name: float(f"{factor:.4g}") for name, factor in zip(self.streams, factors, strict=True)}

    def run_all(self, proxies: int, seeds: int) -> Row:
        """Design, proxies, fit, proposal, confirmation; writes mix.json and the page."""
        from cli.report.page import render

        _warn_of_size(self.config, self.manifest)
        natural = self.sizes / self.sizes.sum()
        uniform = capped(np.full(len(natural), 1 / len(natural)), self.limits)
        shares = spread_out(np.array([natural, uniform]), proxies, self.limits)
        runs = []
        for number, mixture in enumerate(shares, 1):
            runs.append(self.proxy(mixture, 1))
            left = (proxies - number + 3 * seeds - 2) * runs[-1]["seconds"]
            messages().print(
                f"mix: {number} of {proxies}: {runs[-1]['objective']:.4f} bits per byte; {duration(left)} left",
                soft_wrap=True,
            )
        fits = {name: Fit(shares, np.array([row["losses"][name] for row in runs])) for name in self.held_out}
        fit = Fit(shares, np.array([row["objective"] for row in runs]))
        results: Row = {
            "streams": self.streams,
            "targets": self.targets or self.held_out,
            "tokens": self.tokens,
            "runs": runs,
            "fits": {name: _describe(of) for name, of in fits.items()},
            "fit": _describe(fit),
            "predicted": fit.others.tolist(),
            "proposal": None,
        }
        if fit.explains > 0:
            results |= self.confirm({NATURAL: natural, UNIFORM: uniform}, fit, fits, seeds)
        folder = RunFolder(self.folder)
        write_json(folder.path / "mix.json", results)
        page = render(f"{folder.name}: mixtures compared", [], page_sections(results))
        folder.report.write_text(page, "utf-8")
        return results | {"report": str(folder.report)}

    @property
    def folder(self) -> Path:
        return self.run.path.with_name(f"{self.run.path.name}-mix")

    def confirm(self, compared: dict[str, Floats], fit: Fit, fits: dict[str, Fit], seeds: int) -> Row:
        """The proposal with what is predicted of it, and its runs beside those of the other mixtures."""
        shares = propose(fit, self.limits)
        predicted = {name: [float(value[0]) for value in of.predict(shares[None])] for name, of in fits.items()}
        expected, deviation = (float(value[0]) for value in fit.predict(shares[None]))
        compared = compared | {PROPOSAL: shares}
        rounds = {name: [self.proxy(each, seed) for seed in range(1, seeds + 1)] for name, each in compared.items()}
        objectives = {name: [row["objective"] for row in rows] for name, rows in rounds.items()}
        return {
            "proposal": {
                "shares": shares.tolist(),
                "weights": self.weights(shares),
                "epochs": (shares * self.tokens / self.sizes).tolist(),
                "objective": [expected, deviation],
                "predicted": predicted,
            },
            "confirmation": {
                name: {
                    "shares": compared[name].tolist(),
                    "objective": objectives[name],
                    "losses": {of: float(np.mean([row["losses"][of] for row in rows])) for of in self.held_out},
                }
                for name, rows in rounds.items()
            },
            "error_rate": ERROR,
            "verdicts": verdicts(objectives, seeds),
        }

    def proxy(self, shares: Floats, seed: int) -> Row:
        """{shares, seed, losses by held-out stream, objective, seconds} of a proxy, trained unless it was before."""
        from cli.report.learning import training_seconds
        from trainer.loop import train

        weights = {f"train/{name}": weight for name, weight in self.weights(shares).items()}
        config = self.config.model_copy(update={"seed": seed})
        manifest = self.manifest | {"phases": [{"start": 0.0, "weights": weights}]}
        described = json.dumps([manifest, config.model_dump(mode="json")], sort_keys=True)
        folder = self.folder / hashlib.blake2b(described.encode(), digest_size=8).hexdigest()
        proxy = RunFolder(folder)
        if not proxy.result:
            self._link(proxy, manifest)
            with TrainingView() as view:
                train(config, proxy.shards, proxy.train, view)
            proxy = RunFolder(folder)
        shutil.rmtree(proxy.train / "checkpoints", ignore_errors=True)  # of a proxy, only the losses are wanted
        scored = proxy.result["validation"]["streams"]
        losses = {name: float(scored[name]["bits_per_byte"]) for name in self.held_out}
        objective = float(np.mean([losses[name] for name in self.targets or self.held_out]))
        row = {"shares": shares.tolist(), "seed": seed, "losses": losses, "objective": objective}
        return row | {"seconds": training_seconds(proxy)}

    def _link(self, proxy: RunFolder, manifest: Row) -> None:
        """Make the proxy's shards: links to the run's, unpacked once for all proxies, below a manifest of its own."""
        unpacked = self.folder / "shards-cache"
        for folder in (proxy.shards, proxy.train, unpacked):
            folder.mkdir(parents=True, exist_ok=True)
        links = {proxy.shards / part.name: part for part in self.run.shards.iterdir() if part.name != "manifest.json"}
        for link, place in {**links, proxy.train / unpacked.name: unpacked}.items():
            if not link.is_symlink():
                link.symlink_to(place.resolve())
        write_json(proxy.shards / "manifest.json", manifest)


def _warn_of_size(config: TrainConfig, manifest: Row) -> None:
    from trainer.config import parameter_count, resolve_model

    count = parameter_count(resolve_model(config, manifest["vocab_size"], manifest["sequence_length"]))
    if count < SMALL:
        messages().print(
            f"mix: proxies of {count / 1e6:.1f}M parameters; from {SMALL // 10**6}M on, they rank mixtures better",
            soft_wrap=True,
        )


def _describe(fit: Fit) -> Row:
    """Errors in bits per byte of what other runs predict: by the fit, and by their mean."""
    return {"explains": fit.explains, "error": fit.error, "error_of_mean": fit.error_of_mean}


def _says(results: Row) -> str:
    """How good the fit is."""
    fit = results["fit"]
    errors = f"runs that it has not seen: off by {fit['error']:.4f} bits per byte, their mean by "
    errors += f"{fit['error_of_mean']:.4f}"
    if results["proposal"] is None:
        return f"the fit predicts no better than the mean of the runs ({errors}): no proposal; train longer proxies"
    return f"the fit explains {fit['explains']:.0%} of the runs' variance ({errors})"


def recipe_lines(results: Row) -> str:
    """The part of a recipe that sets the proposal's weights."""
    weights = ", ".join(f"{name}: {weight:g}" for name, weight in results["proposal"]["weights"].items())
    return f"tokenize:\n  phases:\n    - {{start: 0, weights: {{{weights}}}}}"


def _lines(results: Row) -> list[Any]:
    if results["proposal"] is None:
        return [_says(results), f"report: {results['report']}"]
    table = make_table("mixture", *results["streams"], "bits per byte", "by seed")
    for name, row in results["confirmation"].items():
        cells = [f"{share:.1%}" for share in row["shares"]]
        scores = "  ".join(f"{score:.4f}" for score in row["objective"])
        table.add_row(name, *cells, f"{np.mean(row['objective']):.4f}", scores)
    expected, deviation = results["proposal"]["objective"]
    predicted = f"predicted of the proposal: {expected:.4f} ± {deviation:.4f} bits per byte"
    says = [row["says"] for row in results["verdicts"]]
    return [table, _says(results), predicted, *says, recipe_lines(results), f"report: {results['report']}"]


def page_sections(results: Row) -> list[Section]:
    """The study as a page: proposal and confirmation, fit, runs."""
    from cli.report.page import Block, Code, Figure, Section, Table, axis

    streams, runs = results["streams"], results["runs"]
    held_out = list(runs[0]["losses"])
    blocks: list[Block] = []
    if proposal := results["proposal"]:
        rows = [
            [name, *row["shares"], float(np.mean(row["objective"])), *row["losses"].values()]
            for name, row in results["confirmation"].items()
        ]
        rows.append(["predicted", *proposal["shares"], proposal["objective"][0]])
        rows[-1] += [expected for expected, _ in proposal["predicted"].values()]
        columns = ["mixture", *(f"share of {name}" for name in streams), "objective"]
        columns += [f"bits per byte of {name}" for name in held_out]
        blocks.append(Table("Natural, uniform and proposal", columns, rows, "means over seeds"))
        rate = f"{results['error_rate']:.0%} of such comparisons call a mixture better where none is"
        blocks.append(Table("Verdicts", ["verdict"], [[row["says"]] for row in results["verdicts"]], rate))
        epochs = [
            [name, share, weight, epoch]
            for name, share, weight, epoch in zip(
                streams, proposal["shares"], proposal["weights"].values(), proposal["epochs"], strict=True
            )
        ]
        note = f"epochs in a run of {results['tokens']:,} tokens; at most {EPOCHS:g}"
        blocks += [Table("Proposal", ["stream", "share", "weight", "epochs"], epochs, note)]
        blocks += [Code("In the recipe", recipe_lines(results))]
    fits: list[list[Any]] = [["objective", *results["fit"].values()]]
    fits += [[name, *fit.values()] for name, fit in results["fits"].items()]
    table = Table("Errors on runs left out", ["loss", "explained", "error of the fit", "error of the mean"], fits)
    measured = [row["objective"] for row in runs]
    points = {"type": "scatter", "mode": "markers", "name": "a run left out", "x": results["predicted"], "y": measured}
    ends = [min(measured), max(measured)]
    equal = {"type": "scatter", "mode": "lines", "name": "equal", "x": ends, "y": ends}
    layout = {"xaxis": axis("predicted by the other runs, bits per byte"), "yaxis": axis("measured")}
    figure = Figure("Predicted and measured", [points, equal], table, layout)
    listed = [[*row["shares"], row["objective"], *row["losses"].values()] for row in runs]
    columns = [*(f"share of {name}" for name in streams), "objective", *held_out]
    lead = f"What is minimized is the mean bits per byte of {', '.join(results['targets'])}."
    return [
        Section("proposal", "Proposal", lead, blocks),
        Section("fit", "Fit", _says(results), [figure]),
        Section("runs", "Runs", "", [Table("Mixtures and losses", columns, listed)]),
    ]
