// What lies near a concept: items at lower levels of its activation, similar concepts, concepts that fire with it,
// its partners in other models, and the results of its setting and of its frozen twins.

import type { ConceptDetail, Concepts } from "../contract"
import * as data from "../data"
import { type Child, h, said } from "../dom"
import { number, score } from "../format"
import { type Page, runOf } from "../page"
import { href } from "../route"
import { conceptLink } from "./concept"
import { inner } from "./ledger"
import { foundCaptions, foundImages } from "./found"
import { failure, loading } from "./notice"
import { bar, itemHref, thumbnail } from "./pictures"
import { whenSeen } from "./seen"

const SIMILAR = 6
const LEVELS: Record<string, string> = {
  "0.75": "Upper quarter",
  "0.5": "Median",
  "0.25": "Lower quarter",
  "0": "Weakest firings, just above the threshold",
}

/** Items at quantiles of the activation, and those on which the concept fires least. */
export function levels({ manifest, run }: Page, details: ConceptDetail): HTMLElement | null {
  if (!manifest.items || !details.levels?.length) return null
  const section = h(
    "section",
    { class: "block levels" },
    h("h2", {}, "From strong to weak"),
    h(
      "p",
      { class: "muted small" },
      "Items around the quartiles of its activations, for the modalities in which it fires on more items than the lists " +
        "above show. The last row holds its weakest firings.",
    ),
  )
  for (const { level, images, texts } of details.levels) {
    const pictures = h("ul", { class: "pictures" })
    const words = h("ul", { class: "plain" })
    section.append(
      h("div", { class: "level" }, h("h3", {}, LEVELS[String(level)] ?? `Quantile ${level}`), pictures, words),
    )
    whenSeen(pictures, () => {
      void Promise.all([
        Promise.all(images.map(({ item }) => thumbnail(item))),
        Promise.all(texts.map(({ item }) => data.text(item))),
      ])
        .then(([thumbs, captions]) => {
          pictures.append(
            ...images.map(({ item, activation }, at) => {
              const thumb = thumbs[at]
              const name = thumb?.querySelector("img")?.alt ?? `image ${item}`
              return h(
                "li",
                {},
                h(
                  "a",
                  { href: itemHref(run, "image", item), "aria-label": `${name}, activation ${number(activation)}` },
                  thumb,
                  h("span", { class: "activation", "aria-hidden": "true" }, number(activation)),
                ),
              )
            }),
          )
          words.append(
            ...texts.map(({ item, activation }, at) =>
              h(
                "li",
                {},
                h("a", { href: itemHref(run, "text", item) }, said(captions[at]?.caption ?? `caption ${item}`, 2)),
                h("span", { class: "activation" }, ` ${number(activation)}`),
              ),
            ),
          )
        })
        .catch((error: unknown) => pictures.replaceChildren(h("li", {}, String(error))))
    })
  }
  return section
}

/** Live: the items on which the concept just does not fire, after a click, since every item is encoded for it. */
export function belowThreshold({ manifest, run, signal }: Page, concept: number): HTMLElement | null {
  if (!manifest.live || !manifest.items) return null
  const place = h("div", { role: "status" })
  const show = () => {
    button.disabled = true
    place.replaceChildren(loading("the items"))
    void data
      .below(run, concept, signal)
      .then(({ items }) => {
        const found = items.map(({ pre_activation, ...item }) => ({ ...item, value: pre_activation }))
        place.replaceChildren(foundImages(run, found, "pre-activation"), foundCaptions(run, found))
      })
      .catch((error: unknown) => {
        if (signal.aborted) return
        button.disabled = false
        place.replaceChildren(failure(error))
      })
  }
  const button = h("button", { class: "button", type: "button", onclick: show }, "Show the items")
  return h(
    "section",
    { class: "block below" },
    h("h2", {}, "Just below the threshold"),
    h(
      "p",
      { class: "muted small" },
      "Items on which the concept does not fire, those with the largest pre-activation first.",
    ),
    button,
    place,
  )
}

function nearList(page: Page, concepts: Concepts, rows: readonly { concept: number; value: number }[]): HTMLElement {
  return h(
    "ul",
    { class: "matches near" },
    rows.map(({ concept, value }) =>
      h("li", {}, conceptLink(page.run, concepts, concept), h("span", { class: "value" }, score(value)), bar(value)),
    ),
  )
}

/** Concepts whose directions are most like its own. */
export function similar(page: Page, concepts: Concepts, concept: number): HTMLElement {
  const place = h("div", { class: "similar-place" })
  whenSeen(place, () => {
    void data
      .dictionary(page.run)
      .then((D) => {
        const rows = [...concepts.name.keys()]
          .filter((other) => other !== concept)
          .map((other) => ({ concept: other, value: inner(D, concept, other) }))
          .sort((a, b) => b.value - a.value)
        place.replaceChildren(nearList(page, concepts, rows.slice(0, SIMILAR)))
      })
      .catch((error: unknown) => place.replaceChildren(failure(error)))
  })
  return h(
    "section",
    { class: "block similar" },
    h("h2", {}, "Similar concepts"),
    h("p", { class: "muted small" }, "By direction: cosine of the rows of the dictionary."),
    place,
  )
}

/** Concepts whose codes correlate most with its own, on images and on captions. */
export function together(page: Page, concepts: Concepts, details: ConceptDetail): HTMLElement | null {
  const found = details.together
  if (!found) return null
  const list = (name: string, { concept, correlation }: typeof found.images) =>
    concept.length > 0 && [
      h("h3", {}, name),
      nearList(
        page,
        concepts,
        concept.map((other, at) => ({ concept: other, value: correlation[at] ?? 0 })),
      ),
    ]
  const [images, texts] = [list("On images", found.images), list("On captions", found.texts)]
  return h(
    "section",
    { class: "block together" },
    h("h2", {}, "Fires together with"),
    h("p", { class: "muted small" }, "By codes: correlation of the activations over the items of one modality."),
    images,
    texts,
    !images && !texts && h("p", { class: "muted" }, "No concept fires together with it more often than by chance."),
  )
}

/** Its partners in other models. */
export function partners({ manifest, run }: Page, concept: number, details: ConceptDetail): HTMLElement | null {
  const others = new Set(manifest.runs.filter(({ model }) => model !== run.model).map(({ model }) => model))
  if (!others.size) return null
  const rows = (details.partners ?? []).flatMap((one) => {
    const other = runOf(manifest, one.key)
    return other ? [{ ...one, run: other }] : []
  })
  const params = { with: rows[0]?.key ?? "", concept: String(concept) }
  return h(
    "section",
    { class: "block" },
    h("h2", {}, "In other models"),
    rows.length
      ? [
          h(
            "p",
            { class: "muted small" },
            "Its partner is the concept whose codes correlate most with its own, on the same items.",
          ),
          h(
            "ul",
            { class: "matches" },
            rows.map((one) =>
              h(
                "li",
                {},
                h(
                  "a",
                  { href: href({ view: "concept", argument: String(one.concept), run: one.key }) },
                  `${one.run.model}, concept ${one.concept}, ${one.modality === "image" ? "on images" : "on captions"}`,
                ),
                h(
                  "span",
                  { class: "value" },
                  score(one.correlation),
                  one.floor !== null && h("span", { class: "muted" }, ` (chance ${score(one.floor)})`),
                ),
                bar(one.correlation),
              ),
            ),
          ),
          h("p", {}, h("a", { href: href({ view: "compare", run: run.key, params }) }, "Side by side")),
        ]
      : h(
          "p",
          { class: "muted" },
          "It has no partner: its codes are constant, or no other model has this setting and seed.",
        ),
  )
}

const FROZEN: Record<string, string> = {
  stability: "stability",
  monosemanticity: "monosemanticity",
  unimodal_share: "share of unimodal concepts",
  retrieval_r1: "recall at 1 of reconstructions",
}

/** Results of the concept's setting and of its best frozen twin; nothing where the study has no twins. */
export function frozenTwins({ run }: Page): HTMLElement {
  const place = h("div", {})
  whenSeen(place, () => {
    void data
      .compare()
      .then(({ frozen }) => {
        const rows = (frozen ?? []).filter(
          (one) => one.model === run.model && one.sae === run.sae && one.figure in FROZEN,
        )
        if (!rows.length) return
        const cells = (values: Child[]) => values.map((value) => h("td", { class: "n" }, value))
        place.append(
          h("h3", {}, "Its setting and its frozen twins"),
          h(
            "table",
            { class: "frozen-twins" },
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                h("td", {}),
                ["trained", "best frozen"].map((name) => h("th", { scope: "col", class: "n" }, name)),
              ),
            ),
            h(
              "tbody",
              {},
              rows.map((one) =>
                h(
                  "tr",
                  {},
                  h("th", { scope: "row" }, FROZEN[one.figure]),
                  cells([score(one.trained), score(one.best_frozen)]),
                ),
              ),
            ),
          ),
          h(
            "p",
            { class: "muted small" },
            "Means over concepts. A result that a frozen twin reaches too was not learned.",
          ),
        )
      })
      .catch((error: unknown) => place.replaceChildren(failure(error)))
  })
  return place
}
