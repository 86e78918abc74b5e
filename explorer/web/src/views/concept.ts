// One concept: the items on which it fires, its numbers, its matches in other seeds, its bridges.

import { modalityWord } from "../colour"
import type { Bridges, ConceptDetail, Concepts, Run } from "../contract"
import * as data from "../data"
import { type Child, h } from "../dom"
import { counted, number, percent, score } from "../format"
import { ownRows } from "../map/scales"
import { HEADING, type Page, runOf } from "../page"
import { itemsLink } from "../parts/items"
import { aboutName, dot, modalityBar, nameOf } from "../parts/concept"
import { bridgeRows } from "../parts/bridge"
import { labelForm } from "../parts/label"
import { counterpart } from "../parts/links"
import { belowThreshold, frozenTwins, levels, partners, similar, together } from "../parts/near"
import { empty, failure, loading } from "../parts/notice"
import { bar, topCaptions, topImages } from "../parts/pictures"
import { whenSeen } from "../parts/seen"
import { href, mapHref } from "../route"

const STRONGEST = 12

/** Draw the page of the concept in the address. */
export async function conceptView(page: Page): Promise<void> {
  const { manifest, run, route, root, signal } = page
  const concept = Number(route.argument)
  root.replaceChildren(loading("the concept"))
  if (route.argument === "none") {
    root.replaceChildren(noCounterpart(page))
    return
  }
  const bridges = data.bridges(run)
  bridges.catch(() => undefined) // fillBridges shows the error
  const [concepts, details] = await Promise.all([data.concepts(run), data.detail(manifest, run, concept)])
  if (signal.aborted) return
  if (!details) {
    const last = run.concepts - 1
    root.replaceChildren(empty(`There is no concept ${route.argument}`, `Concepts of ${run.key} go from 0 to ${last}.`))
    return
  }
  const [pictures, captions] = await Promise.all([topImages(page, details.images), topCaptions(page, details.texts)])
  if (signal.aborted) return
  const strongest = h("section", { class: "block" }, h("h2", {}, "Strongest bridges"), loading("bridges"))
  const label = concepts.automatic?.has(concept) ? (concepts.name[concept] ?? "") : ""
  root.replaceChildren(
    heading(page, concepts, concept),
    counterpartNote(page, details) ?? "",
    labelForm(page, concept, label, () => void conceptView(page)) ?? "",
    h(
      "div",
      { class: "concept-page" },
      h(
        "div",
        { class: "concept-items" },
        h("section", { class: "block" }, h("h2", {}, "Images on which it fires most"), pictures),
        h("section", { class: "block" }, h("h2", {}, "Captions on which it fires most"), captions),
        levels(page, details),
        belowThreshold(page, concept),
      ),
      h(
        "div",
        { class: "concept-facts" },
        activations(details),
        labels(details),
        numbers(page, concepts, concept),
        stability(page, concepts, concept, details),
        partners(page, concept, details),
        similar(page, concepts, concept),
        together(page, concepts, details),
        words(details),
      ),
    ),
    strongest,
  )
  performance.mark("explorer:concept")
  await fillBridges(strongest, page, concepts, concept, bridges)
}

/** Where the reader came from, when the model, setting or seed was changed. */
function counterpartNote({ manifest, run, route }: Page, details: ConceptDetail): HTMLElement | null {
  const from = runOf(manifest, route.params.from ?? null)
  if (!from || !/^\d+$/.test(route.params.of ?? "")) return null
  const back = counterpart(details, from.key)
  const mutual = back?.concept === Number(route.params.of)
  return h(
    "p",
    { class: "counterpart", role: "status" },
    from.model === run.model ? "The match of " : "The partner of ",
    h(
      "a",
      { href: href({ view: "concept", argument: route.params.of ?? "", run: from.key }) },
      `concept ${route.params.of} of ${from.key}`,
    ),
    back === null || mutual ? "." : `. Its own counterpart there is another concept, ${back.concept}.`,
  )
}

function noCounterpart({ manifest, run, route }: Page): HTMLElement {
  const from = runOf(manifest, route.params.from ?? null)
  const of = route.params.of ?? ""
  const word = from?.model === run.model ? "match" : "partner"
  return h(
    "div",
    {},
    h("h1", { id: HEADING, tabindex: -1 }, `No ${word} in ${run.key}`),
    h(
      "p",
      { class: "lead" },
      from
        ? [
            h("a", { href: href({ view: "concept", argument: of, run: from.key }) }, `Concept ${of} of ${from.key}`),
            ` has no ${word} there. `,
          ]
        : "",
      "Seeds of one setting have matches, and models have partners in the same setting and seed. ",
      h("a", { href: mapHref(run.key) }, "The map of this SAE"),
      ".",
    ),
  )
}

function heading({ manifest, run }: Page, concepts: data.Named, concept: number): HTMLElement {
  const modality = concepts.modality_score[concept] ?? null
  const order = [...concepts.energy.keys()].sort((a, b) => (concepts.energy[b] ?? 0) - (concepts.energy[a] ?? 0))
  const at = order.indexOf(concept)
  const beside = (to: number | undefined, words: string, sign: string) =>
    to === undefined
      ? h("span", { class: "icon-button off", "aria-hidden": "true" }, sign)
      : h(
          "a",
          {
            class: "icon-button",
            href: href({ view: "concept", argument: String(to), run: run.key }),
            "aria-label": words,
            title: words,
          },
          sign,
        )
  return h(
    "header",
    { class: "concept-head" },
    h(
      "div",
      { class: "concept-title" },
      h(
        "h1",
        { id: HEADING, tabindex: -1 },
        dot(modality),
        h("bdi", { dir: "auto", class: "clamp clamp-3" }, nameOf(concepts, concept)),
      ),
      h(
        "p",
        { class: "muted" },
        `Concept ${concept} of ${run.model}, ${run.sae}, seed ${run.seed}. `,
        aboutName(concepts, concept),
      ),
    ),
    h(
      "nav",
      { class: "concept-nav", "aria-label": "Other concepts" },
      beside(order[at - 1], "Concept with more energy", "‹"),
      h("span", { class: "muted" }, `${at + 1} of ${order.length} by energy`),
      beside(order[at + 1], "Concept with less energy", "›"),
      h("a", { class: "button", href: mapHref(run.key, { sel: String(concept) }) }, "On the map"),
      itemsLink({ manifest, run }, concept),
    ),
    h(
      "div",
      { class: "concept-modality" },
      modalityBar(modality, manifest.definitions),
      h("p", { "aria-hidden": "true" }, `${score(modality)} · ${modalityWord(modality, manifest.definitions)}`),
    ),
  )
}

function activations(details: ConceptDetail): HTMLElement {
  const section = h("section", { class: "block" }, h("h2", {}, "Activations"))
  if (!details.histogram.edges.length) {
    section.append(h("p", { class: "muted" }, "The concept fires on no item that was counted."))
    return section
  }
  const place = h("div", { class: "chart" })
  section.append(
    h(
      "p",
      { class: "keys" },
      h("span", {}, h("span", { class: "key image", "aria-hidden": "true" }), "images, upwards"),
      h("span", {}, h("span", { class: "key text", "aria-hidden": "true" }), "captions, downwards"),
    ),
    place,
  )
  whenSeen(place, () => {
    void import("../parts/chart")
      .then(({ activationHistogram }) => {
        place.replaceChildren(activationHistogram(details.histogram, Math.max(260, place.clientWidth)))
      })
      .catch((error: unknown) => place.replaceChildren(failure(error)))
  })
  return section
}

function numbers(page: Page, concepts: Concepts, concept: number): HTMLElement {
  const of = (values: readonly (number | null)[]) => values[concept] ?? null
  const row = (name: string, value: Child, meaning: string) =>
    h("div", {}, h("dt", {}, name, h("span", { class: "meaning" }, meaning)), h("dd", {}, value))
  return h(
    "section",
    { class: "block" },
    h("h2", {}, "Numbers"),
    h(
      "dl",
      { class: "facts" },
      row(
        "energy",
        number(of(concepts.energy)),
        `mean activation: images ${number(of(concepts.energy_image))}, captions ${number(of(concepts.energy_text))}`,
      ),
      row(
        "fires on",
        `${percent(of(concepts.rate_image))} / ${percent(of(concepts.rate_text))}`,
        `of images / of captions; ${counted(concepts.firings[concept] ?? 0, "time")} in all`,
      ),
      row("modality score", score(of(concepts.modality_score)), "image energy over both: 1 image, 0 text"),
      row("modality AUC", score(of(concepts.modality_auc)), "as a classifier of images against captions; .5 is chance"),
      row("direction accuracy", score(of(concepts.direction_accuracy)), "of the direction alone, on held-out items"),
      row(
        "monosemanticity",
        score(of(concepts.monosemanticity)),
        "mean cosine between the images on which it fires, weighted",
      ),
      row("name score", score(of(concepts.name_score)), "how well its words find its held-out items; .5 is chance"),
    ),
    h("h3", {}, "Alignment with directions that separate the modalities"),
    h(
      "dl",
      { class: "facts tight" },
      row("mean gap", score(of(concepts.align_mean_gap)), "+ towards images"),
      row("logistic", score(of(concepts.align_logistic)), "+ towards images"),
      row("LDA", score(of(concepts.align_lda)), "+ towards images"),
      row("INLP", score(of(concepts.align_inlp)), "length within the subspace"),
    ),
    frozenTwins(page),
  )
}

function stability(page: Page, concepts: Concepts, concept: number, details: ConceptDetail): HTMLElement {
  const { manifest, run } = page
  if (details.members) return held(page, details.members)
  const section = h("section", { class: "block" }, h("h2", {}, "In other seeds"))
  const matches = details.matches.flatMap((match) => {
    const other = runOf(manifest, match.key)
    return other ? [{ ...match, run: other }] : []
  })
  if (!matches.length) {
    section.append(
      h("p", { class: "muted" }, "This setting was trained with one seed, so there is nothing to compare."),
    )
    return section
  }
  const floor = run.floor_matched === null ? "" : `; the chance level is ${score(run.floor_matched)}`
  section.append(
    h(
      "p",
      { class: "muted" },
      `Stability ${score(concepts.stability[concept])}: the mean cosine to its matches${floor}.`,
    ),
    matchList(matches),
  )
  return section
}

/** In how many seeds a concept of a consensus SAE was found, and which of their concepts it joins. */
function held({ manifest, run }: Page, members: NonNullable<ConceptDetail["members"]>): HTMLElement {
  const of = members.flatMap((member) => {
    const other = runOf(manifest, member.key)
    return other ? [{ ...member, run: other }] : []
  })
  const setting = of[0]?.run.sae
  const seeds = manifest.runs.filter((other) => other.model === run.model && other.sae === setting).length
  return h(
    "section",
    { class: "block" },
    h("h2", {}, "In the seeds that it joins"),
    h("p", { class: "muted" }, `Held by ${of.length} of the ${counted(seeds, "seed")} of ${setting ?? run.sae}.`),
    matchList(of),
  )
}

function matchList(matches: { concept: number; cosine: number; run: Run }[]): HTMLElement {
  return h(
    "ul",
    { class: "matches" },
    matches.map((match) =>
      h(
        "li",
        {},
        h(
          "a",
          { href: href({ view: "concept", argument: String(match.concept), run: match.run.key }) },
          `seed ${match.run.seed}, concept ${match.concept}`,
        ),
        h("span", { class: "value" }, score(match.cosine)),
        bar(match.cosine),
      ),
    ),
  )
}

function labels(details: ConceptDetail): HTMLElement | null {
  if (!details.labels?.length) return null
  const row = (best: NonNullable<ConceptDetail["labels"]>[number]) => {
    const items = best.modality === "image" ? "images" : "captions"
    const chance = `permuted labels reach ${score(best.null_q975)}`
    const verdict = best.above_null ? chance : `no better than chance: ${chance}`
    return h(
      "div",
      {},
      h(
        "dt",
        {},
        h("bdi", { dir: "auto" }, best.label),
        h("span", { class: "meaning" }, h("bdi", { dir: "auto" }, best.name), `, on held-out ${items}; ${verdict}`),
      ),
      h("dd", {}, score(best.auc)),
    )
  }
  return h(
    "section",
    { class: "block" },
    h("h2", {}, "Best labels"),
    h("p", { class: "muted" }, "The AUC of the activation as a classifier of the label; .5 is chance."),
    h("dl", { class: "facts" }, details.labels.map(row)),
  )
}

function words(details: ConceptDetail): HTMLElement | null {
  if (!details.words.length) return null
  return h(
    "section",
    { class: "block" },
    h("h2", {}, "Distinctive words"),
    h(
      "ul",
      { class: "words" },
      details.words.map(({ word }) => h("li", {}, h("bdi", { dir: "auto" }, word))),
    ),
  )
}

async function fillBridges(
  section: HTMLElement,
  page: Page,
  concepts: Concepts,
  concept: number,
  bridges: Promise<Bridges>,
): Promise<void> {
  const title = h("h2", {}, "Strongest bridges")
  try {
    const all = await bridges
    const own = ownAndSelf(all, concept)
    const rows = own.slice(0, STRONGEST)
    section.replaceChildren(
      title,
      rows.length
        ? bridgeRows(page, concepts, all, rows, concept)
        : h(
            "p",
            { class: "muted" },
            "The concept has no bridge: no concept of the other side fires with it on enough pairs to be stored.",
          ),
      own.length > rows.length
        ? h(
            "p",
            {},
            h("a", { href: bridgesOf(page.run, concept) }, `All ${counted(own.length, "bridge")} of this concept`),
          )
        : "",
    )
  } catch (error) {
    section.replaceChildren(
      title,
      failure(error, () => void fillBridges(section, page, concepts, concept, data.bridges(page.run))),
    )
  }
}

/** Rows of the bridges of a concept, including the one with itself; largest |bridge| first, as in the file. */
function ownAndSelf(all: Bridges, concept: number): number[] {
  return ownRows(all, [...all.bridge.keys()], concept)
}

function bridgesOf(run: Run, concept: number): string {
  return href({ view: "bridges", run: run.key, params: { concept: String(concept) } })
}
