// The legend of the map: colour, size and lines.

import { h, s } from "../dom"

/** The legend in the map's corner. */
export function legend(): HTMLElement {
  const circles = [2.5, 5, 8]
  let x = 0
  const sizes = circles.map((radius) => {
    x += radius + 3
    const circle = s("circle", { cx: x, cy: 9, r: radius })
    x += radius
    return circle
  })
  return h(
    "dl",
    { class: "legend", "aria-label": "Legend" },
    h(
      "div",
      {},
      h("dt", {}, "Modality"),
      h(
        "dd",
        {},
        h("span", { class: "scale", "aria-hidden": "true" }),
        h("span", { class: "scale-words" }, h("span", {}, "text"), h("span", {}, "both"), h("span", {}, "image")),
      ),
    ),
    h(
      "div",
      {},
      h("dt", {}, "Energy"),
      h(
        "dd",
        {},
        s("svg", { class: "legend-sizes", width: 44, height: 18, "aria-hidden": "true" }, sizes),
        "area; the largest are cut off",
      ),
    ),
    h(
      "div",
      {},
      h("dt", {}, "Bridge"),
      h("dd", {}, h("span", { class: "legend-line", "aria-hidden": "true" }), "line"),
    ),
  )
}
