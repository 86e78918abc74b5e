// Models, settings and seeds side by side: findings and chance levels, SAEs, figures with the SQL of each.

import type { Compare, Concepts, Definitions, Manifest, Run } from "../contract"
import * as data from "../data"
import { type Child, h } from "../dom"
import { number, percent, score } from "../format"
import { HEADING, type Page } from "../page"
import { conceptLink } from "../parts/concept"
import { counterpart, nearest } from "../parts/links"
import { failure, loading } from "../parts/notice"
import { pictureStrip } from "../parts/pictures"
import { whenSeen } from "../parts/seen"
import { go, here, href } from "../route"

/** Draw the comparison. */
export async function compareView(page: Page): Promise<void> {
  const { manifest, root, signal, route } = page
  root.replaceChildren(loading("the comparison"))
  const compare = await data.compare()
  if (signal.aborted) return
  const parts: Child[] = [
    h("h1", { id: HEADING, tabindex: -1 }, "Compare"),
    h(
      "p",
      { class: "lead" },
      "Models, settings and seeds of the study side by side, with the chance level of each result.",
      manifest.page && [
        " The ",
        h("a", { href: manifest.page }, "study page"),
        " has all tables and figures on one page.",
      ],
    ),
    findings(compare, manifest.definitions),
    sideBySide(page),
    runs(manifest),
    frozen(compare),
    charts(page),
    settings(compare),
    figures(compare, manifest, route.params.figure),
  ]
  root.replaceChildren(...parts.filter((part) => part instanceof Node))
}

function section(title: string, ...content: Child[]): HTMLElement {
  return h("section", { class: "block" }, h("h2", {}, title), ...content)
}

/** A table that scrolls within its own box, also by keys. */
function table(label: string, head: Child[], rows: Child[], kind = ""): HTMLElement {
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h("table", { class: kind }, h("thead", {}, h("tr", {}, head)), rows),
  )
}

/** One row per question, one cell per model and setting. On a phone a row is a card. */
function findings(compare: Compare, { verdicts }: Definitions): HTMLElement {
  if (!compare.findings.length) return section("Findings", h("p", { class: "muted" }, "The study has no findings."))
  const questions = Map.groupBy(compare.findings, ({ question }) => question)
  const several = new Set(compare.findings.map(({ sae }) => sae)).size > 1
  const nameOf = ({ model, sae }: Finding) => (several ? `${model}, ${sae}` : model)
  const columns = [...new Set(compare.findings.map(nameOf))]
  const verdict = ({ holds }: Finding) =>
    h(
      "span",
      { class: holds === null ? "unknown" : holds ? "holds" : "fails" },
      holds === null ? verdicts.open : holds ? `✓ ${verdicts.holds}` : `✗ ${verdicts.fails}`,
    )
  const cell = (finding: Finding | undefined, name: string) =>
    h(
      "td",
      { "data-name": name },
      finding
        ? [
            h("p", { class: "verdict" }, verdict(finding), ` ${number(finding.figure)}`),
            h(
              "p",
              { class: "muted small" },
              `interval ${between(finding.low, finding.high)}; ${against(finding)}; must be ${bound(finding)}`,
            ),
          ]
        : "–",
    )
  const rows = [...questions].map(([question, of], at) => {
    const [first] = of
    const words = `rule-${at}`
    return h(
      "tr",
      {},
      h(
        "th",
        { scope: "row", class: "claim" },
        first &&
          h(
            "button",
            { class: "rule", type: "button", "aria-describedby": words },
            question,
            h("span", { class: "rule-words", id: words, role: "tooltip" }, ruleInWords(first)),
          ),
      ),
      columns.map((name) =>
        cell(
          of.find((finding) => nameOf(finding) === name),
          name,
        ),
      ),
    )
  })
  const head = ["question", ...columns].map((name) => h("th", { scope: "col" }, name))
  const shown = table("Findings", head, [h("tbody", {}, rows)], "findings")
  shown.classList.add("findings-scroll")
  return section(
    "Findings",
    shown,
    h(
      "p",
      { class: "muted small" },
      "A claim holds if its whole interval lies on the side that the claim states, fails if no part of it does, and is " +
        "undecided otherwise. Result: the mean over seeds or pairs of seeds. Next to it: the same result by chance, or of " +
        "the best frozen twin, and its 95 % range. Point at a question, or move to it with the Tab key, to see its rule.",
    ),
  )
}

/** The claim of a question, and what decides it. */
function ruleInWords({ claim, rule, threshold, margin, seeds, interval_over, note }: Finding): string {
  const limits = [
    threshold === null ? "" : `threshold ${number(threshold)}`,
    margin === null ? "" : `margin ${number(margin)}`,
  ].filter(Boolean)
  return [
    `Claim: ${claim}.`,
    `Rule: ${rule}${limits.length ? ` (${limits.join(", ")})` : ""}.`,
    `Interval over ${interval_over.replaceAll("_", " ")}; ${seeds} ${seeds === 1 ? "seed" : "seeds"}.`,
    note ? `Note: ${note}.` : "",
  ].join(" ")
}

type Finding = Compare["findings"][number]

function between(low: number | null, high: number | null): string {
  return low === null || high === null ? "–" : `${number(low)} to ${number(high)}`
}

/** What a result is compared with: its name, its mean and its range. */
function against(finding: Finding): string {
  const name = finding.null_name.replaceAll("_", " ")
  if (finding.null_mean === null) return `${name}, not known`
  const range = finding.null_low === null ? "" : ` (${between(finding.null_low, finding.null_high)})`
  return `${name} ${number(finding.null_mean)}${range}`
}

/** What the whole interval must be for the claim to hold. */
function bound({ rule, bound }: Finding): string {
  return bound === null ? "–" : `${rule.startsWith("below") ? "<" : ">"} ${number(bound)}`
}

const AT_ONCE = 10 // concepts of a side-by-side list

/** Concepts of the SAE that is shown, next to their matches or partners in another SAE. */
function sideBySide(page: Page): HTMLElement | false {
  const { manifest, run, route } = page
  const others = manifest.runs.filter(
    (other) =>
      other.key !== run.key && (other.model === run.model || (other.sae === run.sae && other.seed === run.seed)),
  )
  const other =
    others.find(({ key }) => key === route.params.with) ?? others.find(({ model }) => model !== run.model) ?? others[0]
  if (!other) return false
  const choice = h(
    "select",
    {},
    others.map(({ key }) => h("option", { value: key, selected: key === other.key }, key)),
  )
  choice.addEventListener("change", () => {
    go({ ...here(), run: run.key, params: { ...here().params, with: choice.value } })
  })
  const list = h("ol", { class: "side-by-side" })
  const element = section(
    "Concepts side by side",
    h("p", { class: "controls" }, h("label", {}, `Concepts of ${run.key} next to `, choice)),
    h(
      "p",
      { class: "muted small" },
      isOtherSetting(run, other)
        ? "The concept of the other SAE with the nearest direction, and the cosine of the two. Several concepts may have the same one."
        : other.model === run.model
          ? "The match of a concept in another seed, with the cosine of the two directions."
          : "The partner of a concept in another model, with the correlation of the two codes on the same items.",
    ),
    list,
  )
  whenSeen(element, () => {
    void fillSideBySide(page, other, list).catch((error: unknown) => list.replaceChildren(h("li", {}, failure(error))))
  })
  return element
}

/** Whether two SAEs of one model have different settings: concepts of such SAEs are not matched one to one. */
function isOtherSetting(run: Run, other: Run): boolean {
  return other.model === run.model && other.sae !== run.sae
}

async function fillSideBySide(page: Page, other: Run, list: HTMLElement): Promise<void> {
  const { manifest, run, route } = page
  const [own, theirs] = await Promise.all([data.concepts(run), data.concepts(other)])
  const directions = isOtherSetting(run, other)
    ? await Promise.all([data.dictionary(run), data.dictionary(other)])
    : null
  const asked = /^\d+$/.test(route.params.concept ?? "") ? Number(route.params.concept) : null
  const order = [...own.name.keys()].sort((a, b) => (own.energy[b] ?? 0) - (own.energy[a] ?? 0))
  if (asked !== null && asked in own.name) order.unshift(...order.splice(order.indexOf(asked), 1))
  const strip = (of: Run, concept: number) =>
    manifest.items && pictureStrip(async () => (await data.detail(manifest, of, concept))?.images ?? [], 5)
  const row = async (concept: number) => {
    const details = await data.detail(manifest, run, concept)
    const found = directions
      ? nearest(directions[0], concept, directions[1])
      : details && counterpart(details, other.key)
    const floor = details?.partners?.find((one) => one.key === other.key && one.correlation === found?.likeness)?.floor
    return h(
      "li",
      { class: concept === asked ? "asked" : "" },
      h("div", {}, conceptLink(run, own, concept), strip(run, concept)),
      h(
        "div",
        { class: "likeness" },
        found ? score(found.likeness) : "none",
        floor !== undefined && floor !== null && h("span", { class: "muted" }, ` (chance ${score(floor)})`),
      ),
      found
        ? h("div", {}, conceptLink(other, theirs, found.concept), strip(other, found.concept))
        : h("p", { class: "muted" }, `It has no counterpart in ${other.key}.`),
    )
  }
  const grow = async (from: number): Promise<void> => {
    list.append(...(await Promise.all(order.slice(from, from + AT_ONCE).map(row))))
    if (from + AT_ONCE >= order.length) return
    const more = h("button", { class: "button", type: "button" }, "Show more")
    const end = h("li", { class: "more" }, more)
    more.addEventListener("click", () => {
      end.remove()
      void grow(from + AT_ONCE).catch((error: unknown) => list.append(h("li", {}, failure(error))))
    })
    list.append(end)
  }
  list.replaceChildren()
  await grow(0)
}

function runs(manifest: Manifest): HTMLElement {
  const head = [
    "SAE",
    "concepts",
    "R² image",
    "R² text",
    "L0",
    "dead",
    "stability",
    "chance (matched)",
    "chance (random)",
    "bridges",
  ]
  const rows = manifest.runs.map((run) =>
    h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        h("a", { href: href({ view: "map", run: run.key }) }, `${run.model} · ${run.sae} · seed ${run.seed}`),
      ),
      [
        String(run.concepts),
        score(run.r2_image),
        score(run.r2_text),
        number(run.l0),
        percent(run.dead_fraction),
        score(run.stability),
        score(run.floor_matched),
        score(run.floor_random),
        String(run.bridges),
      ].map((value) => h("td", { class: "n" }, value)),
    ),
  )
  return section(
    "SAEs",
    table(
      "SAEs",
      head.map((name, at) => h("th", { scope: "col", class: at ? "n" : "" }, name)),
      [h("tbody", {}, rows)],
    ),
    h(
      "p",
      { class: "muted small" },
      "Each name opens the map of the SAE. Only stability above the matched floor is evidence.",
    ),
  )
}

function frozen(compare: Compare): HTMLElement | false {
  if (!compare.frozen?.length) return false
  const head = ["result", "SAE", "trained", "best frozen", "excess", "its twin"]
  const rows = compare.frozen.map((row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, row.figure.replaceAll("_", " ")),
      h("td", {}, `${row.model} · ${row.sae}`),
      [score(row.trained), score(row.best_frozen), score(row.excess)].map((value) => h("td", { class: "n" }, value)),
      h("td", {}, row.best_twin),
    ),
  )
  return section(
    "Compared with frozen twins",
    table(
      "Compared with frozen twins",
      head.map((name, at) => h("th", { scope: "col", class: at > 1 && at < 5 ? "n" : "" }, name)),
      [h("tbody", {}, rows)],
    ),
    h(
      "p",
      { class: "muted small" },
      "A frozen twin is the same setting with a part that is never learned. Excess: the share of the way from the best " +
        "twin to 1 that training has gained; at 0 or below, the result is no evidence of what was learned.",
    ),
  )
}

function charts(page: Page): HTMLElement {
  const stability = h("div", { class: "chart" })
  const modality = h("div", { class: "chart" })
  const shown = page.manifest.runs
  const { min_firings } = page.manifest.definitions
  const first = [...Map.groupBy(shown, (run) => `${run.model} · ${run.sae}`)].flatMap(([label, of]) =>
    of[0] ? [{ label, run: of[0] }] : [],
  )
  const element = section(
    "At a glance",
    h(
      "div",
      { class: "two" },
      h(
        "div",
        {},
        h("h3", {}, "Stability and its floors"),
        h("p", { class: "keys" }, key("●", "stability"), key("□", "matched floor"), key("×", "random floor")),
        stability,
      ),
      h(
        "div",
        {},
        h("h3", {}, `Modality scores of concepts with at least ${min_firings} firings, first seed`),
        modality,
      ),
    ),
  )
  whenSeen(element, () => {
    void Promise.all([import("../parts/chart"), ...first.map(({ run }) => data.concepts(run))])
      .then(([chart, ...all]) => {
        if (page.signal.aborted) return
        const width = (place: HTMLElement) => Math.max(280, place.clientWidth)
        stability.replaceChildren(chart.stabilityChart(shown, width(stability)))
        const scores = first.map(({ label }, at) => ({ label, scores: counted(all[at], min_firings) }))
        modality.replaceChildren(chart.modalityHistograms(scores, width(modality)))
      })
      .catch((error: unknown) => element.append(failure(error)))
  })
  return element
}

/** Modality scores of the concepts that fire often enough to be counted. */
function counted(concepts: Concepts | undefined, min_firings: number): (number | null)[] {
  return concepts?.modality_score.filter((_, concept) => (concepts.firings[concept] ?? 0) >= min_firings) ?? []
}

function key(sign: string, words: string): HTMLElement {
  return h("span", {}, h("span", { "aria-hidden": "true", class: "key-sign" }, sign), words)
}

function settings(compare: Compare): HTMLElement | false {
  const first = compare.settings[0]
  if (!first) return false
  const columns = Object.keys(first).filter((name) => name !== "path")
  const written = (value: unknown) =>
    typeof value === "number"
      ? Number.isInteger(value)
        ? String(value)
        : number(value)
      : value === null
        ? "–"
        : String(value)
  const rows = compare.settings.map((row) =>
    h(
      "tr",
      {},
      columns.map((name) => h("td", { class: typeof row[name] === "number" ? "n" : "" }, written(row[name]))),
    ),
  )
  return section(
    "Settings",
    h(
      "details",
      {},
      h("summary", {}, "Every column of the view ", h("code", {}, "saes")),
      table(
        "Settings",
        columns.map((name) => h("th", { scope: "col", class: typeof first[name] === "number" ? "n" : "" }, name)),
        [h("tbody", {}, rows)],
      ),
    ),
  )
}

function figures(compare: Compare, manifest: Manifest, asked: string | undefined): HTMLElement | false {
  if (!compare.figures.length) return false
  const contents = h(
    "nav",
    { class: "contents", "aria-label": "Figures" },
    compare.figures.map(({ id, title }) =>
      h("a", { href: href({ view: "compare", run: null, params: { figure: id } }) }, title),
    ),
  )
  const shown = compare.figures.map((figure) => {
    const element = h(
      "figure",
      { class: "report-figure", id: `figure-${figure.id}`, tabindex: -1 },
      h("h3", {}, figure.title),
      h("div", { class: "paper" }, h("img", { src: figure.svg, alt: figure.caption, loading: "lazy" })),
      h("figcaption", {}, figure.caption),
      h(
        "details",
        { class: "sql-source" },
        h("summary", {}, "SQL"),
        h("pre", { tabindex: 0 }, h("code", {}, figure.sql)),
        manifest.live &&
          h(
            "p",
            {},
            h("a", { class: "button", href: href({ view: "sql", params: { q: figure.sql } }) }, "Open it in SQL"),
          ),
      ),
    )
    if (figure.id === asked)
      requestAnimationFrame(() => (element.scrollIntoView(), element.focus({ preventScroll: true })))
    return element
  })
  return section("Figures", contents, ...shown)
}
