"""CommonCrawl (paper, section 2.1): web archives by CCNet's steps, and like pages that Wikipedia cites.

Main text by trafilatura, lines deduplicated over all pages, language; where they are asked for, perplexity by an n-gram model of
Wikipedia and a classifier of references.
"""

from typing import Any

from llama_jax.clean.language import keep_languages, web_languages
from llama_jax.clean.lines import HashLines, RemoveLines, deduplicate_lines_stage
from llama_jax.clean.main_text import main_text
from llama_jax.clean.perplexity import PERPLEXITY_FILE, TrainPerplexity, check_perplexity_options, keep_buckets, perplexity_steps
from llama_jax.clean.reference import REFERENCE_FILE, TrainReference, check_reference_options, keep_references
from llama_jax.clean.stages import Stage, Workplace
from llama_jax.clean.warc import read_warc


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean web archives."""
    language = keep_languages(web_languages(options), threshold=options.language_threshold, model=options.language_model)
    with_perplexity, with_reference = check_perplexity_options(options), check_reference_options(options)
    stages = [
        *_training_stages(place, options),
        place.stage("text", place.read(read_warc), place.edit("main text", main_text), HashLines(place.folder("lines")),
                    place.write("text")),
        deduplicate_lines_stage(place),
    ]
    pages = [place.read_again("text"), RemoveLines(place.folder("lines"), examples=place.examples()),
             place.edit("language", language)]
    if with_perplexity:
        pages += perplexity_steps(place, options)
    if with_perplexity and not options.perplexity_thresholds:  # which takes the perplexity of all pages
        stages.append(place.stage("pages", *pages, place.write("measured")))
        choose = keep_buckets(options.buckets, counted=place.folder("counted"))
        pages = [place.read_again("measured"), place.edit("buckets", choose)]
    if with_reference:
        model = options.reference_model or str(place.output / REFERENCE_FILE)
        pages.append(place.edit("references", keep_references(model, threshold=options.reference_threshold)))
    return [*stages, place.stage("kept pages", *pages, place.write())]


def _training_stages(place: Workplace, options: Any) -> list[Stage]:
    """The stages that train models, first: a mistake in their text shows before the long work."""
    stages = []
    if options.perplexity_text:
        train = TrainPerplexity(options.perplexity_text, place.output / PERPLEXITY_FILE, examples=place.examples())
        stages.append(place.stage("train perplexity", train, tasks=1))
    if options.reference_pages:
        train = TrainReference((options.reference_pages, options.random_pages), place.output / REFERENCE_FILE,
                               threshold=options.reference_threshold, examples=place.examples())
        stages.append(place.stage("train reference", train, tasks=1))
    return stages
