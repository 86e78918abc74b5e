// Draws up to a million items with its own shader: 12 bytes per item in graphics memory, as points in a random order.
// While the map moves, only the first points are drawn, which are a uniform sample; at rest, the others are added over
// several frames, so that no frame is long without a GPU. It does not depend on pages, addresses or data files.

import { holds } from "../map/region"
import { channels, linked } from "../map/webgl"
import { Grid } from "./grid"

/** How an item is drawn. */
export const NORMAL = 0
export const FAINT = 1
export const LIT = 2
export const TICKED = 3
export const HIDDEN = 4

export interface Camera {
  x: number
  y: number
  ratio: number
}

export interface Point {
  x: number
  y: number
}

export interface CloudColours {
  image: string
  text: string
  faint: string
  ink: string
  ground: string
}

const UNIT = 32767
const AT_ONCE = 60_000 // points per frame, about 30 ms without a GPU
const RESTS_AFTER = 150 // milliseconds without movement
const MOST_ZOOM = 0.004
const FURTHEST = 2.5
const MARGIN = 0.94 // share of the window that the whole map takes
const REACH = 5 // pixels around a point that still select it

const VERTEX = `#version 300 es
uniform vec2 scale;
uniform vec2 centre;
uniform float size;
uniform bool above;
uniform vec3 colours[3]; // image, text, faint
in vec2 place;
in vec2 kind; // modality, mark
out vec4 tint;
out float ring;
void main() {
  int mark = int(kind.y + 0.5);
  gl_Position = mark == ${HIDDEN} ? vec4(2.0, 2.0, 2.0, 1.0) : vec4((place - centre) * scale, 0.0, 1.0);
  gl_PointSize = above ? size * 1.5 + (mark == ${TICKED} ? 4.0 : 2.0) : size;
  vec3 own = colours[int(kind.x + 0.5)];
  tint = mark == ${FAINT} ? vec4(colours[2], 0.45) : vec4(own, above ? 1.0 : 0.8);
  ring = mark == ${TICKED} ? 1.0 : 0.0;
}`
const FRAGMENT = `#version 300 es
precision mediump float;
uniform vec3 ink;
in vec4 tint;
in float ring;
out vec4 fragment;
void main() {
  float from = length(gl_PointCoord - 0.5);
  if (from > 0.5) discard;
  vec3 colour = ring > 0.5 && from > 0.3 ? ink : tint.rgb;
  fragment = vec4(colour * tint.a, tint.a);
}`

/** The canvas with the points, and its camera. */
export class Cloud {
  private readonly canvas = document.createElement("canvas")
  private readonly gl: WebGL2RenderingContext
  private program!: WebGLProgram
  private buffers!: { places: WebGLBuffer; kinds: WebGLBuffer; above: WebGLBuffer; aboveKinds: WebGLBuffer }
  private vertices!: { all: WebGLVertexArrayObject; above: WebGLVertexArrayObject }
  private x: Int16Array = new Int16Array()
  private y: Int16Array = new Int16Array()
  private images = 0
  private order: Uint32Array = new Uint32Array()
  private marks: Uint8Array = new Uint8Array()
  private raised = 0 // lit and ticked points, drawn above the others
  private grid = new Grid(this.x, this.y)
  private view: Camera = { x: 0, y: 0, ratio: 1 }
  private drawnPoints = 0
  private moving = false
  private frame = 0
  private timer = 0
  private colours: CloudColours | null = null

  constructor(
    private readonly container: HTMLElement,
    private readonly events: { moved: () => void; drawn: (whole: boolean) => void },
  ) {
    container.prepend(this.canvas)
    const gl = this.canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true, alpha: true })
    if (!gl) throw new Error("this browser has no WebGL 2, with which the map of items is drawn")
    this.gl = gl
    this.build()
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault())
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.build()
      this.upload()
      this.paint()
    })
    new ResizeObserver(() => this.resized()).observe(container)
    this.resized()
    this.listen()
  }

  private build(): void {
    const gl = this.gl
    this.program = linked(gl, VERTEX, FRAGMENT)
    this.buffers = {
      places: gl.createBuffer(),
      kinds: gl.createBuffer(),
      above: gl.createBuffer(),
      aboveKinds: gl.createBuffer(),
    }
    const bound = (places: WebGLBuffer, kinds: WebGLBuffer) => {
      const vertices = gl.createVertexArray()
      gl.bindVertexArray(vertices)
      for (const [name, buffer, type, normalised] of [
        ["place", places, gl.SHORT, true],
        ["kind", kinds, gl.UNSIGNED_BYTE, false],
      ] as const) {
        const at = gl.getAttribLocation(this.program, name)
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer)
        gl.enableVertexAttribArray(at)
        gl.vertexAttribPointer(at, 2, type, normalised, 0, 0)
      }
      return vertices
    }
    this.vertices = {
      all: bound(this.buffers.places, this.buffers.kinds),
      above: bound(this.buffers.above, this.buffers.aboveKinds),
    }
    gl.bindVertexArray(null)
  }

  /** Replace all points: x and y in steps of 1/32767, the images first. */
  load(x: Int16Array, y: Int16Array, images: number): void {
    this.x = x
    this.y = y
    this.images = images
    this.order = shuffled(x.length)
    this.marks = new Uint8Array(x.length)
    this.grid = new Grid(x, y)
    this.upload()
  }

  private upload(): void {
    const gl = this.gl
    const places = new Int16Array(2 * this.order.length)
    this.order.forEach((item, at) => {
      places[2 * at] = this.x[item] as number
      places[2 * at + 1] = this.y[item] as number
    })
    this.fill(this.buffers.places, places)
    gl.bindBuffer(gl.ARRAY_BUFFER, null)
    this.mark(this.marks)
  }

  private fill(buffer: WebGLBuffer, values: ArrayBufferView<ArrayBuffer>): void {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, buffer)
    this.gl.bufferData(this.gl.ARRAY_BUFFER, values, this.gl.STATIC_DRAW)
  }

  /** Say how each item is drawn: one of the marks per item. */
  mark(marks: Uint8Array): void {
    this.marks = marks
    const kinds = new Uint8Array(2 * this.order.length)
    const above: number[] = []
    this.order.forEach((item, at) => {
      kinds[2 * at] = item < this.images ? 0 : 1
      kinds[2 * at + 1] = marks[item] as number
      if (marks[item] === LIT || marks[item] === TICKED) above.push(item)
    })
    this.raised = above.length
    this.fill(this.buffers.kinds, kinds)
    this.fill(this.buffers.above, new Int16Array(above.flatMap((item) => [this.x[item] ?? 0, this.y[item] ?? 0])))
    this.fill(
      this.buffers.aboveKinds,
      new Uint8Array(above.flatMap((item) => [item < this.images ? 0 : 1, marks[item] ?? 0])),
    )
    this.paint()
  }

  recolour(colours: CloudColours): void {
    this.colours = colours
    this.paint()
  }

  private resized(): void {
    const density = Math.min(devicePixelRatio || 1, 2)
    this.canvas.width = Math.max(1, Math.round(this.container.clientWidth * density))
    this.canvas.height = Math.max(1, Math.round(this.container.clientHeight * density))
    this.paint()
  }

  /** Pixels of the page per unit of the map. */
  private unit(): number {
    return (Math.min(this.container.clientWidth, this.container.clientHeight) / 2) * (MARGIN / this.view.ratio)
  }

  /** Diameter of a point in pixels of the page: smaller when there are more points, larger when the map is enlarged. */
  private size(): number {
    const count = this.x.length
    const whole = count > 200_000 ? 1.5 : count > 20_000 ? 2.4 : 5
    return Math.min(11, whole * this.view.ratio ** -0.4)
  }

  private paint(): void {
    cancelAnimationFrame(this.frame)
    this.drawnPoints = 0
    this.frame = requestAnimationFrame(() => this.render())
  }

  private render(): void {
    if (!this.colours || this.gl.isContextLost()) return
    const gl = this.gl
    const first = this.drawnPoints === 0
    const count = Math.min(AT_ONCE, this.order.length - this.drawnPoints)
    gl.viewport(0, 0, this.canvas.width, this.canvas.height)
    if (first) {
      gl.clearColor(0, 0, 0, 0)
      gl.clear(gl.COLOR_BUFFER_BIT)
    }
    const uniform = (name: string) => gl.getUniformLocation(this.program, name)
    const rgb = (colour: string) => channels(colour).slice(0, 3).map((value) => value / 255) // prettier-ignore
    const { image, text, faint, ink } = this.colours
    gl.useProgram(this.program)
    gl.enable(gl.BLEND)
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA)
    const unit = this.unit()
    gl.uniform2f(uniform("scale"), (2 * unit) / this.container.clientWidth, (2 * unit) / this.container.clientHeight)
    gl.uniform2f(uniform("centre"), this.view.x, this.view.y)
    gl.uniform1f(uniform("size"), this.size() * (this.canvas.width / Math.max(1, this.container.clientWidth)))
    gl.uniform3fv(uniform("colours"), [image, text, faint].flatMap(rgb))
    gl.uniform3fv(uniform("ink"), rgb(ink))
    gl.uniform1i(uniform("above"), 0)
    gl.bindVertexArray(this.vertices.all)
    if (count > 0) gl.drawArrays(gl.POINTS, this.drawnPoints, count)
    this.drawnPoints += count
    gl.uniform1i(uniform("above"), 1)
    gl.bindVertexArray(this.vertices.above)
    if (this.raised) gl.drawArrays(gl.POINTS, 0, this.raised)
    gl.bindVertexArray(null)
    const whole = this.drawnPoints >= this.order.length
    this.events.drawn(whole)
    if (!whole && !this.moving) this.frame = requestAnimationFrame(() => this.render())
  }

  private listen(): void {
    let from: { x: number; y: number; at: Camera } | null = null
    const fingers = new Map<number, Point>()
    let apart = 0
    this.container.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target !== this.canvas) return
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY })
      apart = spread(fingers)
      from = { x: event.clientX, y: event.clientY, at: this.camera() }
      this.canvas.setPointerCapture(event.pointerId)
    })
    this.container.addEventListener("pointermove", (event) => {
      if (!from || !fingers.has(event.pointerId)) return
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY })
      if (fingers.size > 1) {
        const now = spread(fingers)
        if (apart > 0) this.zoom(apart / now)
        apart = now
        return
      }
      const unit = this.unit()
      this.move({ x: from.at.x - (event.clientX - from.x) / unit, y: from.at.y + (event.clientY - from.y) / unit })
    })
    const end = (event: PointerEvent) => {
      fingers.delete(event.pointerId)
      from = null
    }
    this.container.addEventListener("pointerup", end)
    this.container.addEventListener("pointercancel", end)
    this.container.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault()
        const box = this.container.getBoundingClientRect()
        this.zoom(1.0018 ** event.deltaY, { x: event.clientX - box.left, y: event.clientY - box.top })
      },
      { passive: false },
    )
  }

  camera(): Camera {
    return { ...this.view }
  }

  move(camera: Partial<Camera>): void {
    const next = { ...this.view, ...camera }
    next.ratio = Math.min(FURTHEST, Math.max(MOST_ZOOM, next.ratio))
    this.view = next
    this.moving = true
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      this.moving = false
      if (this.drawnPoints < this.order.length) this.frame = requestAnimationFrame(() => this.render())
    }, RESTS_AFTER)
    this.paint()
    this.events.moved()
  }

  /** Zoom by a factor about a place in pixels, or the centre; a factor below 1 enlarges. */
  zoom(factor: number, about?: Point): void {
    const ratio = Math.min(FURTHEST, Math.max(MOST_ZOOM, this.view.ratio * factor))
    if (!about) return this.move({ ratio })
    const fixed = this.onMap(about)
    const share = ratio / this.view.ratio
    this.move({ x: fixed.x + (this.view.x - fixed.x) * share, y: fixed.y + (this.view.y - fixed.y) * share, ratio })
  }

  /** The place on the map, in [-1, 1], of a place in pixels of the container. */
  onMap({ x, y }: Point): Point {
    const unit = this.unit()
    return {
      x: this.view.x + (x - this.container.clientWidth / 2) / unit,
      y: this.view.y - (y - this.container.clientHeight / 2) / unit,
    }
  }

  /** The place of an item in pixels of the container, and its radius. */
  place(item: number): { x: number; y: number; radius: number } | null {
    if (item < 0 || item >= this.x.length) return null
    const unit = this.unit()
    return {
      x: ((this.x[item] as number) / UNIT - this.view.x) * unit + this.container.clientWidth / 2,
      y: (this.view.y - (this.y[item] as number) / UNIT) * unit + this.container.clientHeight / 2,
      radius: this.size() / 2,
    }
  }

  /** The nearest item that is shown at a place in pixels; null when none is near. */
  at(point: Point): number | null {
    const here = this.onMap(point)
    const reach = (REACH + this.size() / 2) / this.unit()
    let nearest: number | null = null
    let least = reach
    this.grid.each(here.x - reach, here.y - reach, here.x + reach, here.y + reach, (item) => {
      if (this.marks[item] === HIDDEN) return
      const far = Math.hypot((this.x[item] as number) / UNIT - here.x, (this.y[item] as number) / UNIT - here.y)
      if (far >= least) return
      least = far
      nearest = item
    })
    return nearest
  }

  /** The items that are shown within a polygon of places in pixels. */
  inside(polygon: readonly Point[]): number[] {
    const corners = polygon.map((point) => this.onMap(point))
    const xs = corners.map(({ x }) => x)
    const ys = corners.map(({ y }) => y)
    const found: number[] = []
    this.grid.each(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (item) => {
      if (this.marks[item] === HIDDEN) return
      if (holds(corners, (this.x[item] as number) / UNIT, (this.y[item] as number) / UNIT)) found.push(item)
    })
    return found.sort((a, b) => a - b)
  }

  /** The items that are shown in the window. */
  inWindow(): number[] {
    const { clientWidth: w, clientHeight: h } = this.container
    return this.inside([{ x: 0, y: 0 }, { x: w, y: 0 }, { x: w, y: h }, { x: 0, y: h }]) // prettier-ignore
  }

  /** Move the camera only if an item lies outside the window. */
  reveal(item: number): void {
    const at = this.place(item)
    if (!at) return
    if (at.x > 0 && at.y > 0 && at.x < this.container.clientWidth && at.y < this.container.clientHeight) return
    this.move({ x: (this.x[item] as number) / UNIT, y: (this.y[item] as number) / UNIT })
  }
}

function spread(fingers: ReadonlyMap<number, Point>): number {
  const [a, b] = [...fingers.values()]
  return a && b ? Math.hypot(a.x - b.x, a.y - b.y) : 0
}

/** The numbers 0 to count - 1 in a fixed random order. */
function shuffled(count: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, at) => at)
  let state = 12345
  for (let at = count - 1; at > 0; at--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const other = Math.floor((state / 2 ** 32) * (at + 1))
    const kept = order[at] as number
    order[at] = order[other] as number
    order[other] = kept
  }
  return order
}
