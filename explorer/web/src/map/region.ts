// Lasso and box over a map, by pointer and by keys.

import { h, s } from "../dom"

export interface Place {
  x: number
  y: number
}
type Mode = "move" | "lasso" | "box"

const STEP = 24 // pixels by which an arrow key moves or resizes the box
const LEAST = 6 // pixels that the pointer must move before a lasso or a box counts

/** A layer over a map's canvas. `chosen` receives the outline in pixels of the canvas; add: whether Shift was held. */
export class Region {
  readonly tools: HTMLElement
  private readonly layer: SVGSVGElement
  private readonly outline = s("polygon", { class: "region-outline", points: "" })
  private mode: Mode = "move"
  private points: Place[] = []
  private keyed: { x: number; y: number; width: number; height: number } | null = null

  constructor(
    private readonly canvas: HTMLElement,
    private readonly chosen: (outline: readonly Place[], add: boolean) => void,
    private readonly say: (text: string) => void,
  ) {
    this.layer = s("svg", { class: "region", "aria-hidden": "true" }, this.outline)
    canvas.after(this.layer)
    const tool = (mode: Mode, label: string, hint: string) => {
      const button = h(
        "button",
        { type: "button", "data-mode": mode, "aria-pressed": String(mode === "move"), title: hint },
        label,
      )
      button.addEventListener("click", (event) => {
        this.use(mode)
        if (mode === "box" && event.detail === 0) this.begin() // pressed by a key
      })
      return button
    }
    this.tools = h(
      "div",
      { class: "region-tools", role: "group", "aria-label": "Pointer" },
      tool("move", "Move", "Drag moves the map"),
      tool("lasso", "Lasso", "Draw around what you want to select; Shift adds to the selection"),
      tool("box", "Box", "Drag a box; by keys: B, then arrows, Shift and arrows, Enter"),
    )
    this.listen()
  }

  private use(mode: Mode): void {
    this.mode = mode
    this.layer.classList.toggle("active", mode !== "move")
    for (const button of this.tools.querySelectorAll<HTMLElement>("button"))
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode))
    this.clear()
  }

  private clear(): void {
    this.points = []
    this.keyed = null
    this.outline.setAttribute("points", "")
  }

  private draw(points: readonly Place[]): void {
    this.outline.setAttribute("points", points.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "))
  }

  private listen(): void {
    const at = (event: PointerEvent): Place => {
      const { left, top } = this.layer.getBoundingClientRect()
      return { x: event.clientX - left, y: event.clientY - top }
    }
    this.layer.addEventListener("pointerdown", (event) => {
      if (this.mode === "move" || event.button !== 0) return
      event.preventDefault()
      this.keyed = null
      this.layer.setPointerCapture(event.pointerId)
      this.points = [at(event)]
    })
    this.layer.addEventListener("pointermove", (event) => {
      const first = this.points[0]
      if (!first) return
      const here = at(event)
      const last = this.points.at(-1) as Place
      if (this.mode === "box") this.points = [first, here]
      else if (Math.hypot(here.x - last.x, here.y - last.y) > 3) this.points.push(here)
      this.draw(this.mode === "box" ? corners(first, here) : this.points)
    })
    const end = (event: PointerEvent) => {
      const [first, last] = [this.points[0], this.points.at(-1)]
      const outline = this.mode === "box" && first && last ? corners(first, last) : this.points
      this.clear()
      const wide = (values: number[]) => Math.max(...values) - Math.min(...values)
      if (outline.length < 3 || wide(outline.flatMap(({ x }) => x)) + wide(outline.map(({ y }) => y)) < LEAST) return
      if (event.type === "pointerup") this.chosen(outline, event.shiftKey)
    }
    this.layer.addEventListener("pointerup", end)
    this.layer.addEventListener("pointercancel", end)
  }

  /** Start a box in the middle of the map that keys move and resize. */
  private begin(): void {
    const { clientWidth, clientHeight } = this.canvas
    const [width, height] = [clientWidth / 4, clientHeight / 4]
    this.keyed = { x: (clientWidth - width) / 2, y: (clientHeight - height) / 2, width, height }
    this.drawKeyed()
    this.canvas.focus()
    this.say("A box. Arrow keys move it, Shift and arrow keys change its size, Enter selects, Escape ends.")
  }

  private drawKeyed(): void {
    if (this.keyed) this.draw(this.outlineOfKeyed(this.keyed))
  }

  private outlineOfKeyed({ x, y, width, height }: { x: number; y: number; width: number; height: number }): Place[] {
    return corners({ x, y }, { x: x + width, y: y + height })
  }

  /** Handle a key that was pressed on the map. Returns whether it was one for the box. */
  key(event: KeyboardEvent): boolean {
    if (event.key === "b" || event.key === "B") {
      this.use("box")
      this.begin()
      return true
    }
    const box = this.keyed
    if (!box) return false
    if (event.key === "Escape") this.use("move")
    else if (event.key === "Enter") {
      const outline = this.outlineOfKeyed(box)
      this.use("move")
      this.chosen(outline, event.shiftKey)
    } else {
      const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
      if (!arrow) return false
      const [dx, dy] = arrow as [number, number]
      if (event.shiftKey) {
        box.width = Math.max(STEP, box.width + dx * STEP)
        box.height = Math.max(STEP, box.height + dy * STEP)
      } else {
        box.x += dx * STEP
        box.y += dy * STEP
      }
      this.drawKeyed()
    }
    return true
  }
}

function corners(a: Place, b: Place): Place[] {
  return [a, { x: b.x, y: a.y }, b, { x: a.x, y: b.y }]
}

/** Whether a polygon holds a place, by the even-odd rule. */
export function holds(corners: readonly Place[], x: number, y: number): boolean {
  let inside = false
  for (let at = 0, before = corners.length - 1; at < corners.length; before = at++) {
    const a = corners[at] as Place
    const b = corners[before] as Place
    if (a.y > y !== b.y > y && x < ((b.x - a.x) * (y - a.y)) / (b.y - a.y) + a.x) inside = !inside
  }
  return inside
}
