// Models, settings and seeds side by side: findings beside chance, runs, figures with the SQL of each.

import type { Compare, Concepts, Definitions, Manifest } from "../contract"
import * as data from "../data"
import { type Child, h } from "../dom"
import { number, percent, score } from "../format"
import { HEADING, type Page } from "../page"
import { failure, loading } from "../parts/notice"
import { whenSeen } from "../parts/seen"
import { href } from "../route"

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
      "Models, settings and seeds of the study side by side, with the level of chance beside each figure.",
    ),
    findings(compare, manifest.definitions),
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

function findings(compare: Compare, { verdicts }: Definitions): HTMLElement {
  if (!compare.findings.length) return section("Findings", h("p", { class: "muted" }, "The study has no findings."))
  const groups = Map.groupBy(compare.findings, (finding) => finding.claim)
  const several = new Set(compare.findings.map((finding) => finding.sae)).size > 1
  const verdict = (holds: boolean | null) =>
    h(
      "td",
      { class: holds === null ? "unknown" : holds ? "holds" : "fails" },
      holds === null ? verdicts.open : holds ? `✓ ${verdicts.holds}` : `✗ ${verdicts.fails}`,
    )
  const body = [...groups].map(([claim, rows]) =>
    h(
      "tbody",
      {},
      rows.map((finding, at) =>
        h(
          "tr",
          {},
          at === 0 && h("th", { scope: "rowgroup", rowspan: rows.length, class: "claim" }, claim),
          h("td", {}, several ? `${finding.model}, ${finding.sae}` : finding.model),
          h("td", { class: "n" }, number(finding.figure)),
          h("td", { class: "n" }, between(finding.low, finding.high)),
          h("td", { title: finding.note ?? "" }, against(finding)),
          h("td", { class: "n" }, bound(finding)),
          verdict(finding.holds),
        ),
      ),
    ),
  )
  const head = ["claim", "model", "figure", "95 % interval", "held against", "must be", "verdict"].map((name, at) =>
    h("th", { scope: "col", class: [2, 3, 5].includes(at) ? "n" : "" }, name),
  )
  return section(
    "Findings",
    table("Findings", head, body, "findings"),
    h(
      "p",
      { class: "muted small" },
      "A claim holds if its whole interval is what it must be, fails if no part of it is, and is undecided otherwise. " +
        "Figure: the mean over seeds or pairs of seeds. Held against: the same figure by chance, or of the best frozen twin, " +
        "and its 95 % range.",
    ),
  )
}

type Finding = Compare["findings"][number]

function between(low: number | null, high: number | null): string {
  return low === null || high === null ? "–" : `${number(low)} to ${number(high)}`
}

/** What a figure is held against: its name, its mean and its range. */
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

function runs(manifest: Manifest): HTMLElement {
  const head = [
    "run",
    "concepts",
    "R² image",
    "R² text",
    "L0",
    "dead",
    "stability",
    "floor matched",
    "floor random",
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
    "Runs",
    table(
      "Runs",
      head.map((name, at) => h("th", { scope: "col", class: at ? "n" : "" }, name)),
      [h("tbody", {}, rows)],
    ),
    h(
      "p",
      { class: "muted small" },
      "Each name opens the run's map. Only stability above the matched floor is evidence.",
    ),
  )
}

function frozen(compare: Compare): HTMLElement | false {
  if (!compare.frozen?.length) return false
  const head = ["figure", "SAE", "trained", "best frozen", "excess", "its twin"]
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
    "Beside frozen twins",
    table(
      "Beside frozen twins",
      head.map((name, at) => h("th", { scope: "col", class: at > 1 && at < 5 ? "n" : "" }, name)),
      [h("tbody", {}, rows)],
    ),
    h(
      "p",
      { class: "muted small" },
      "A frozen twin is the same setting with a part that is never learned. Excess: the share of the way from the best " +
        "twin to 1 that training has gained; at 0 or below, the figure is no evidence of what was learned.",
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
        h("h3", {}, "Stability beside its floors"),
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
