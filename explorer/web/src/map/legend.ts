// The legend of the map: colour, size and lines.

import { h, s } from "../dom"
import type { Shown } from "./columns"

/** Fill the legend in the map's corner. */
export function fillLegend(legend: HTMLElement, colour: Shown, size: Shown): void {
  const circles = [2.5, 5, 8]
  let x = 0
  const sizes = circles.map((radius) => {
    x += radius + 3
    const circle = s("circle", { cx: x, cy: 9, r: radius })
    x += radius
    return circle
  })
  const words =
    colour.kind === "modality" ? ["text", "both", "image"] : [colour.write(colour.low), colour.write(colour.high)]
  const part = (title: string, ...content: Node[]) => h("div", {}, h("dt", {}, title), h("dd", {}, content))
  const clipped = (title: string) => (title.length > 34 ? `${title.slice(0, 33)}…` : title)
  const hasUnknown = colour.values.some((value) => value === null)
  legend.replaceChildren(
    part(
      clipped(colour.kind === "modality" ? "Modality" : colour.title),
      h("span", { class: `scale scale-${colour.kind}`, "aria-hidden": "true" }),
      h(
        "span",
        { class: "scale-words" },
        words.map((word) => h("span", {}, word)),
      ),
      ...(hasUnknown ? [h("span", { class: "scale-none" }, h("span", { class: "dot none" }), "no value")] : []),
    ),
    part(
      `Size: ${clipped(size.title)}`,
      s("svg", { class: "legend-sizes", width: 44, height: 18, "aria-hidden": "true" }, sizes),
      h("span", {}, "area; the largest are cut off"),
    ),
    part("Bridge", h("span", { class: "legend-line", "aria-hidden": "true" }), h("span", {}, "line")),
  )
}
