// Why an image and a caption match: their similarity as a sum over pairs of concepts and named terms, and what is left of
// it without some concepts. An image with its own caption is computed from published files, other pairs by the server.

import type { Concepts, PairLedger, PairRank } from "../contract"
import * as data from "../data"
import { type Child, clip, h, said, styled } from "../dom"
import { count, counted, number } from "../format"
import { HEADING, type Page } from "../page"
import { conceptLink, nameOf } from "../parts/concept"
import { downloads, saveCsv } from "../parts/download"
import type { Ledger, Row } from "../parts/ledger"
import { empty, failure, loading } from "../parts/notice"
import { keepPicture, ownPicture } from "../parts/own"
import { type Asked, type Left, type Pair, answered, pairHref, published, sidesOf } from "../parts/pairs"
import { describe, itemHref } from "../parts/pictures"
import { go, here, note } from "../route"

const ROWS = 16 // pairs of concepts that are listed before the others are asked for

const TERMS: Record<string, string> = {
  concepts: "concepts of the image with concepts of the caption",
  text_on_bias: "the caption's concepts with the decoder's bias",
  image_on_bias: "the image's concepts with the decoder's bias",
  bias: "the decoder's bias with itself, the same for every pair",
  text_on_mean: "the caption's concepts with the mean of images",
  image_on_mean: "the image's concepts with the mean of captions",
  bias_on_means: "the decoder's bias with both means, the same for every pair",
  means: "the mean of images with the mean of captions, the same for every pair",
  image_residual: "what the SAE leaves out of the image, with the caption's reconstruction",
  text_residual: "what the SAE leaves out of the caption, with the image's reconstruction",
  residuals: "what the SAE leaves out of both",
}

/** Draw the pair in the address: IMAGE,CAPTION, each an id or "own", without the concepts of the parameter `without`. */
export async function pairView(page: Page): Promise<void> {
  const { manifest, run, route, root, signal } = page
  const asked = sidesOf(route.argument, route.params.text ?? "")
  if (!asked) {
    root.replaceChildren(empty("This is no pair", "The address of a pair states an image and a caption: #/pair/12,34."))
    return
  }
  root.replaceChildren(loading("the pair"))
  const [concepts, found, sides] = await Promise.all([
    data.concepts(run),
    published(run, asked),
    sidesShown(page, asked),
  ])
  if (signal.aborted) return
  if (!sides) {
    root.replaceChildren(
      empty("There is no such pair here", "The study has no such image or caption, or the site does not show it."),
    )
    return
  }
  if (!found && !manifest.live) {
    root.replaceChildren(
      empty(
        "This pair needs the live explorer",
        "A published site has the images with their own captions. ",
        h("code", {}, "bridgescope explore"),
        " compares any image with any caption, and your own.",
      ),
    )
    return
  }
  if (asked.image === "own" && !ownPicture()) {
    root.replaceChildren(heading(null), choosePicture(asked, page))
    return
  }
  const pair = found ?? (await fromServer(page, asked))
  if (signal.aborted) return
  new PairPage(page, asked, pair, concepts, sides).open()
}

async function fromServer({ run, signal }: Page, asked: Asked): Promise<Pair> {
  const { similarity, terms, rows, codes } = await answered(run, asked, [], false, signal)
  return { ledger: { similarity, terms, rows }, codes, left: null }
}

class PairPage {
  private readonly sums = h("section", { class: "block pair-sum" })
  private readonly rows = h("section", { class: "block" })
  private readonly what = h("section", { class: "block pair-what", "aria-live": "polite" })
  private readonly toggles = new Map<string, HTMLButtonElement>()
  private asking: AbortController | null = null
  private out: Set<number>
  private answer: PairLedger | null = null
  private failed: unknown = null

  constructor(
    private readonly page: Page,
    private readonly asked: Asked,
    private readonly pair: Pair,
    private readonly concepts: Concepts,
    private readonly sides: HTMLElement,
  ) {
    const known = new Set([...pair.codes.image.concept, ...pair.codes.text.concept])
    const named = (page.route.params.without ?? "").split(",").filter((one) => /^\d+$/.test(one))
    this.out = new Set(named.map(Number).filter((concept) => known.has(concept)))
  }

  open(): void {
    const { image, text } = this.pair.codes
    this.page.root.replaceChildren(
      heading(this.pair.ledger.similarity),
      this.sides,
      h(
        "div",
        { class: "two pair-codes" },
        this.codes("image", image.concept, image.activation),
        this.codes("text", text.concept, text.activation),
      ),
      this.what,
      this.sums,
      this.rows,
      this.page.manifest.live ? tryOther(this.page, this.asked) : "",
    )
    this.draw()
    performance.mark("explorer:pair")
    void this.ask()
  }

  /** The concepts of one item; each has a button that leaves it out of both items. */
  private codes(side: "image" | "text", of: readonly number[], activation: readonly number[]): HTMLElement {
    const rowsOf = (concept: number) =>
      this.pair.ledger.rows
        .filter((row) => row[side === "image" ? "image_concept" : "text_concept"] === concept)
        .reduce((sum, { contribution }) => sum + contribution, 0)
    return h(
      "section",
      { class: `block side-${side}` },
      h("h2", {}, side === "image" ? "Concepts of the image" : "Concepts of the caption"),
      of.length
        ? h(
            "ul",
            { class: "pair-concepts" },
            of.map((concept, at) => {
              const toggle = h("button", { class: "button small", type: "button", onclick: () => this.toggle(concept) })
              this.toggles.set(`${side}${concept}`, toggle)
              return h(
                "li",
                {},
                conceptLink(this.page.run, this.concepts, concept),
                h("span", { class: "muted" }, `at ${number(activation[at])}, adds ${number(rowsOf(concept))}`),
                toggle,
              )
            }),
          )
        : h("p", { class: "muted" }, "No concept fires on it."),
    )
  }

  private toggle(concept: number): void {
    if (!this.out.delete(concept)) this.out.add(concept)
    this.answer = null
    note({ without: [...this.out].sort((a, b) => a - b).join(",") })
    this.draw()
    void this.ask()
  }

  /** Ask the server for ranks, and where the page cannot compute it for what is left. */
  private async ask(): Promise<void> {
    if (!this.page.manifest.live) return
    this.asking?.abort()
    const mine = (this.asking = new AbortController())
    const signal = AbortSignal.any([mine.signal, this.page.signal])
    this.failed = null
    try {
      const answer = await answered(this.page.run, this.asked, [...this.out], true, signal)
      if (signal.aborted) return
      this.answer = answer
    } catch (error) {
      if (signal.aborted) return
      this.failed = error
    }
    this.draw()
  }

  private draw(): void {
    for (const [name, toggle] of this.toggles) {
      const concept = Number(name.replace(/^\D+/, ""))
      const out = this.out.has(concept)
      toggle.setAttribute("aria-pressed", String(out))
      const words = out ? "left out" : "leave out"
      toggle.setAttribute("aria-label", `${words} ${clip(nameOf(this.concepts, concept), 60)} #${concept}`)
      toggle.textContent = words
      toggle.closest("li")?.classList.toggle("out", out)
    }
    const left = this.left()
    const shown = this.out.size ? (left?.ledger ?? null) : this.pair.ledger
    this.sums.replaceChildren(h("h2", {}, "What adds up"), ...(shown ? this.sum(shown) : [loading("the sum")]))
    this.rows.replaceChildren(h("h2", {}, "Pairs of concepts"), ...this.list())
    this.what.replaceChildren(...this.whatIf(left))
  }

  private left(): Left | null {
    if (!this.out.size) return null
    if (this.pair.left) return this.pair.left(this.out)
    const found = this.answer?.what_if
    if (!found) return null
    const rows = this.pair.ledger.rows.filter((row) => !this.isOut(row))
    const ledger = { similarity: found.after.inner, terms: found.terms, rows }
    return { ledger, cosine: found.after.similarity, energy: found.energy, random: null }
  }

  private isOut(row: Row): boolean {
    return this.out.has(row.image_concept) || this.out.has(row.text_concept)
  }

  private sum(ledger: Ledger): Child[] & Node[] {
    const fromRows = ledger.rows.reduce((sum, { contribution }) => sum + contribution, 0)
    const terms = Object.entries({ ...ledger.terms, concepts: fromRows })
    const total = terms.reduce((sum, [, value]) => sum + value, 0)
    const most = Math.max(...terms.map(([, value]) => Math.abs(value)), Number.MIN_VALUE)
    const order = Object.keys(TERMS)
    const left = this.out.size > 0
    return [
      h(
        "ol",
        { class: "terms" },
        terms
          .sort(([a], [b]) => order.indexOf(a) - order.indexOf(b))
          .map(([name, value]) =>
            h(
              "li",
              { class: name.includes("residual") ? "residual" : "" },
              h("span", { class: "term-name" }, TERMS[name] ?? name.replaceAll("_", " ")),
              h("span", { class: "value" }, four(value)),
              diverging(value / most),
            ),
          ),
        h(
          "li",
          { class: "total" },
          h("span", { class: "term-name" }, "Sum"),
          h("span", { class: "value", "data-sum": total }, four(total)),
        ),
        h(
          "li",
          { class: "total" },
          h(
            "span",
            { class: "term-name" },
            left ? "Inner product of what remains" : "Similarity of the two embeddings",
          ),
          h("span", { class: "value", "data-similarity": ledger.similarity }, four(ledger.similarity)),
        ),
      ),
      h(
        "p",
        { class: "muted small" },
        left
          ? "The inner product of the two embeddings without the concepts that are left out."
          : "The similarity is the cosine of the two embeddings.",
        this.pair.left
          ? " Computed in this page from published codes; their rounding errors are added to the residuals."
          : " Computed by the server.",
      ),
      downloads([["CSV", () => saveCsv({ columns: ["term", "value"], rows: terms }, "terms.csv")]], "sum"),
    ]
  }

  private list(): HTMLElement[] {
    const { rows } = this.pair.ledger
    if (!rows.length) return [h("p", { class: "muted" }, "No concept fires on both sides.")]
    const most = Math.abs(rows[0]?.contribution ?? 1) || 1
    const item = (row: Row) =>
      h(
        "li",
        { class: this.isOut(row) ? "out" : "" },
        h("span", { class: "pair-side image" }, conceptLink(this.page.run, this.concepts, row.image_concept)),
        h("span", { class: "pair-side text" }, conceptLink(this.page.run, this.concepts, row.text_concept)),
        h("span", { class: "value" }, four(row.contribution)),
        diverging(row.contribution / most),
      )
    const rest = rows.slice(ROWS)
    const named = (concept: number) => [concept, this.concepts.name[concept]]
    const table = {
      columns: ["image_concept", "image_name", "text_concept", "text_name", "contribution"],
      rows: rows.map((row) => [...named(row.image_concept), ...named(row.text_concept), row.contribution]),
    }
    return [
      h(
        "p",
        { class: "muted small" },
        "A pair adds both activations times the cosine of the two directions. Image concept first, then caption concept.",
      ),
      h("ol", { class: "contributions" }, rows.slice(0, ROWS).map(item)),
      ...(rest.length
        ? [
            h(
              "details",
              {},
              h("summary", {}, `${counted(rest.length, "more pair")}, ${four(sumOf(rest))} together`),
              h("ol", { class: "contributions" }, rest.map(item)),
            ),
          ]
        : []),
      downloads([["CSV", () => saveCsv(table, "contributions.csv")]], "list"),
    ]
  }

  private whatIf(left: Left | null): Child[] & Node[] {
    const { before, gallery, what_if: found } = this.answer ?? {}
    const rows: Child[] = []
    const random = (values: readonly number[] | null | undefined) =>
      values?.length ? `${four(mean(values))} (${four(Math.min(...values))} to ${four(Math.max(...values))})` : "–"
    const range = (name: "caption" | "image" | "similarity") => {
      const of = found?.random[name]
      return of ? `${number(of.mean)} (${number(of.low)} to ${number(of.high)})` : "–"
    }
    const row = (name: string, ...values: string[]) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, name),
        this.columns(values).map((value) => h("td", { class: "n" }, value)),
      )
    rows.push(
      row(
        "similarity",
        four(this.pair.ledger.similarity),
        left ? four(left.cosine) : "–",
        left?.random ? random(left.random.cosine) : range("similarity"),
      ),
    )
    if (before && gallery) {
      const place = (rank: PairRank | undefined, of: number) =>
        rank ? `${count(rank.rank)} of ${count(of)}${rank.tied ? `, ${count(rank.tied)} tied` : ""}` : "–"
      rows.push(
        row(
          "rank of the caption",
          place(before.caption, gallery.captions),
          place(found?.after.caption, gallery.captions),
          range("caption"),
        ),
        row(
          "rank of the image",
          place(before.image, gallery.images),
          place(found?.after.image, gallery.images),
          range("image"),
        ),
      )
    }
    const head = ["", "whole", "without them", "without random sets of as much energy"]
    return [
      h("h2", {}, this.out.size ? "Without some concepts" : "Similarity and rank"),
      this.out.size
        ? h(
            "p",
            { class: "left-out" },
            "Left out: ",
            [...this.out].map((concept) => this.chip(concept)),
            h("button", { class: "button quiet", type: "button", onclick: () => this.reset() }, "Put all back"),
          )
        : h("p", { class: "muted" }, "Leave out concepts with the buttons in the lists above."),
      h(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "Similarity and rank" },
        h(
          "table",
          { class: "what-if" },
          h(
            "thead",
            {},
            h("tr", {}, [
              h("td", {}),
              ...this.columns(head.slice(1)).map((name) => h("th", { scope: "col", class: "n" }, name)),
            ]),
          ),
          h("tbody", {}, rows),
        ),
      ),
      this.ranksNote(),
    ]
  }

  private columns<T>(values: T[]): T[] {
    return this.out.size ? values : values.slice(0, 1)
  }

  private ranksNote(): HTMLElement {
    if (!this.page.manifest.live)
      return h(
        "p",
        { class: "muted small" },
        "A published site cannot count ranks: that needs all held-out items. ",
        h("code", {}, "bridgescope explore"),
        " does.",
      )
    if (this.failed) return failure(this.failed, () => void this.ask())
    if (!this.answer) return h("p", { class: "muted small ranks-wait" }, "Counting ranks among the held-out items…")
    return h(
      "p",
      { class: "muted small" },
      "Ranks compare cosines with held-out items; rank 1 is the nearest. The concepts are left out of these items too.",
    )
  }

  private chip(concept: number): HTMLElement {
    return h(
      "button",
      { class: "chip", type: "button", onclick: () => this.toggle(concept) },
      h("bdi", { dir: "auto", class: "clamp clamp-1" }, `${nameOf(this.concepts, concept)} #${concept}`),
      h("span", { "aria-hidden": "true" }, " ×"),
      h("span", { class: "visually-hidden" }, ": put it back"),
    )
  }

  private reset(): void {
    this.out = new Set()
    this.answer = null
    note({ without: "" })
    this.draw()
    void this.ask()
    document.getElementById(HEADING)?.focus({ preventScroll: true })
  }
}

function heading(similarity: number | null): HTMLElement {
  return h(
    "header",
    {},
    h("p", { class: "eyebrow" }, "Why do these match?"),
    h("h1", { id: HEADING, tabindex: -1 }, similarity === null ? "Your own pair" : `Similarity ${four(similarity)}`),
  )
}

/** Four decimals, with a sign: sums are compared to this many digits. */
function four(value: number): string {
  const text = Math.abs(value).toFixed(4)
  return value < 0 && Number(text) !== 0 ? `−${text}` : text
}

const sumOf = (rows: readonly Row[]) => rows.reduce((sum, { contribution }) => sum + contribution, 0)
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

/** A bar to the right of the middle for a share above 0, to its left below 0; a decoration beside a number. */
function diverging(share: number): HTMLElement {
  const size = Math.min(1, Math.abs(share)) * 50
  const fill = styled(h("span", { class: `bar-fill ${share < 0 ? "negative" : ""}` }), {
    width: `${size}%`,
    "margin-inline-start": `${share < 0 ? 50 - size : 50}%`,
  })
  return h("span", { class: "bar diverging", "aria-hidden": "true" }, fill)
}

/** Image and caption side by side; null when the site shows one of them not. */
async function sidesShown({ manifest, run }: Page, asked: Asked): Promise<HTMLElement | null> {
  const [image, text] = await Promise.all([
    asked.image === "own" ? null : data.image(asked.image),
    asked.caption === "own" ? null : data.text(asked.caption),
  ])
  if ((asked.image !== "own" && !image) || (asked.caption !== "own" && !text)) return null
  const picture = h("div", { class: "item-picture" })
  const own = ownPicture()
  if (asked.image === "own" && own) {
    const address = URL.createObjectURL(own)
    const shown = h("img", { src: address, alt: `Your image, ${clip(own.name, 80)}` })
    shown.addEventListener("load", () => URL.revokeObjectURL(address))
    picture.append(shown)
  } else if (image?.thumb && asked.image !== "own") {
    const shown = h("img", {
      src: manifest.live ? `api/image/${asked.image}` : image.thumb,
      alt: await describe(image),
    })
    const thumb = image.thumb
    shown.addEventListener("error", () => shown.src.endsWith(thumb) || (shown.src = thumb), { once: true })
    picture.append(shown)
  } else picture.append(h("span", { class: "thumb none" }, image ? said(clip(image.key, 40)) : "no picture"))
  const words = asked.caption === "own" ? asked.text : (text?.caption ?? "")
  return h(
    "div",
    { class: "pair-head" },
    h(
      "figure",
      {},
      asked.image === "own" ? picture : h("a", { href: itemHref(run, "image", asked.image) }, picture),
      h("figcaption", {}, asked.image === "own" ? "your image" : `image ${asked.image}`),
    ),
    h(
      "div",
      { class: "pair-caption" },
      h(
        "p",
        { class: "caption-title" },
        asked.caption === "own"
          ? said(words, 6)
          : h("a", { href: itemHref(run, "text", asked.caption) }, said(words, 6)),
      ),
      h("p", { class: "muted small" }, asked.caption === "own" ? "your caption" : `caption ${asked.caption}`),
    ),
  )
}

/** Live: the same image with a caption of the reader's own, or the same caption with a picture of their own. */
function tryOther(page: Page, asked: Asked): HTMLElement {
  const words = h("input", { type: "text", id: "own-caption", maxlength: 2000, placeholder: "a red heart" })
  words.value = asked.text
  const send = (event: Event) => {
    event.preventDefault()
    const text = words.value.trim()
    if (text) go({ view: "pair", argument: `${asked.image},own`, run: page.run.key, params: { text } })
  }
  return h(
    "section",
    { class: "block pair-own" },
    h("h2", {}, "Your own"),
    h(
      "form",
      { onsubmit: send },
      h("label", { for: "own-caption" }, "This image with your caption"),
      words,
      h("button", { class: "button", type: "submit" }, "Show this pair"),
    ),
    choosePicture(asked, page),
  )
}

function choosePicture(asked: Asked, { run, signal }: Page): HTMLElement {
  const file = h("input", { type: "file", accept: "image/*", id: "own-picture" })
  file.addEventListener(
    "change",
    () => {
      const given = file.files?.[0]
      if (!given) return
      keepPicture(given)
      const address = pairHref(run, "own", asked.caption, asked.text ? { text: asked.text } : {})
      if (here().argument === `own,${asked.caption}`) dispatchEvent(new HashChangeEvent("hashchange"))
      else location.hash = address
    },
    { signal },
  )
  return h(
    "p",
    { class: "own-picture" },
    h("label", { for: "own-picture" }, "This caption with your picture"),
    file,
    h("span", { class: "muted small" }, "A picture stays on this machine and is not part of the page's address."),
  )
}
