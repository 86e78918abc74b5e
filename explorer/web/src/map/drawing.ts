// The map's WebGL drawing: dots, edges, the camera. It does not depend on pages, addresses or data files.

import Graph from "graphology"
import Sigma from "sigma"
import { DotLayer, type Instances } from "./dots"
import { Labels } from "./labels"
import { type Ends, LineLayer } from "./lines"
import { channels } from "./webgl"

export interface Dots {
  x: readonly (number | null)[]
  y: readonly (number | null)[]
  radius: readonly number[]
  label: readonly string[]
}

export interface Edge {
  from: number
  to: number
  /** Weight in [0, 1], which becomes width and opacity. */
  weight: number
}

export interface Camera {
  x: number
  y: number
  ratio: number
}

export interface Colours {
  dot: readonly string[]
  label: string
  ground: string
  edge: string
  strong: string
}

export interface Events {
  entered: (concept: number) => void
  left: () => void
  clicked: (concept: number | null) => void
  opened: (concept: number) => void
  moved: () => void
  drawn: () => void
}

// Layouts of all runs lie in [-1, 1]. With this fixed frame, the camera shows the same region when the run changes.
const FRAME = { x: [-1, 1] as [number, number], y: [-1, 1] as [number, number] }
const REACH = 3 // pixels around a dot that still select it
const MOVING_LINES = 1500 // lines drawn while the camera moves: without a GPU, all of them take half a second per frame
const NAME_REACH = 150 // a dot up to this many pixels outside the window may have a name that reaches into it
const RESTS_AFTER = 250 // milliseconds without movement
const NAMED = 400 // most dots that may have a name, the largest in the window
const WITH_WIDTH = 300 // number of strongest edges, whose width shows their weight; the others are thin lines

/**
 * `DotLayer` draws the dots, and `LineLayer` draws the thin edges. Sigma has the camera, and draws the
 * strongest edges and the edges of the selected concepts. Its graph holds only the dots with such an edge, and it draws
 * these dots transparent. `Labels` writes the names.
 */
export class Drawing {
  private readonly graph = new Graph({ type: "undirected", multi: true })
  private readonly sigma: Sigma
  private all: Dots = { x: [], y: [], radius: [], label: [] }
  private bySize: number[] = [] // the dots that have a place, largest first
  private passing: Uint8Array = new Uint8Array()
  private colours: Colours | null = null
  private selected: string[] = [] // edges of the selected concept
  private thin: readonly Edge[] = [] // edges that are drawn as lines
  private lines: LineLayer | null = null
  private layer: DotLayer | null = null
  private resting = 0
  private over: number | null = null // the dot under the pointer
  private named: number[] = [] // the dots that may have a name, most important first
  private first: readonly number[] = [] // selected dots, named before all others
  private readonly labels: Labels

  constructor(container: HTMLElement, events: Events) {
    this.sigma = new Sigma(this.graph, container, {
      styles: {
        nodes: {
          x: { attribute: "x" },
          y: { attribute: "y" },
          size: { attribute: "size" },
          color: "#00000000", // transparent, since `DotLayer` draws the dot
          depth: "nodes",
        },
        edges: {
          size: { attribute: "size" },
          color: { attribute: "color" },
          opacity: { attribute: "opacity" },
          depth: { attribute: "depth", defaultValue: "edges" },
        },
      },
      settings: {
        itemSizesReference: "screen",
        stagePadding: 36,
        minEdgeThickness: 0.6,
        pickingDownSizingRatio: 64, // not used: see `listen`
        renderLabels: false, // see `Labels`
        minCameraRatio: 0.02,
        maxCameraRatio: 2.5,
        doubleClickTimeout: 250,
        enableCameraRotation: false,
        allowInvalidContainer: true,
      },
    })
    this.labels = new Labels(container)
    this.sigma.setCustomBBox(FRAME)
    this.sigma.refresh() // from here on, sigma can convert places to pixels
    this.sigma.addCustomLayerProgram("lines", "edges", (gl) => {
      this.lines = new LineLayer(gl, () => this.ends()) // called again after a lost context
      return this.lines
    })
    this.sigma.addCustomLayerProgram("dots", "nodes", (gl) => {
      this.layer = new DotLayer(gl, () => this.instances())
      return this.layer
    })
    this.listen(container, events)
    this.sigma.on("afterRender", () => {
      this.write()
      events.drawn()
    })
    this.sigma.getCamera().on("updated", () => {
      this.rests()
      events.moved()
    })
  }

  /**
   * Finds the dot under the pointer in place of sigma. Sigma would draw the whole map again for every dot that the
   * pointer enters, and would draw all dots a second time into a buffer that tells which dot lies where.
   */
  private listen(container: HTMLElement, events: Events): void {
    const enter = (concept: number | null) => {
      if (concept === this.over) return
      this.over = concept
      container.style.cursor = concept === null ? "" : "pointer"
      if (concept === null) events.left()
      else events.entered(concept)
    }
    container.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return
      if (event.buttons) {
        this.rests()
        return enter(null) // the map is dragged
      }
      event.stopPropagation() // sigma listens on an ancestor
      const { left, top } = container.getBoundingClientRect()
      enter(this.at(event.clientX - left, event.clientY - top))
    })
    container.addEventListener("pointerleave", () => enter(null))
    container.addEventListener("wheel", () => this.rests(), { capture: true, passive: true })
    const clicked = ({ event }: { event: { x: number; y: number } }) => events.clicked(this.at(event.x, event.y))
    this.sigma.on("clickNode", clicked)
    this.sigma.on("clickStage", clicked)
    const opened = ({
      event,
      preventSigmaDefault,
    }: {
      event: { x: number; y: number }
      preventSigmaDefault(): void
    }) => {
      const concept = this.at(event.x, event.y)
      if (concept === null) return
      preventSigmaDefault()
      events.opened(concept)
    }
    this.sigma.on("doubleClickNode", opened)
    this.sigma.on("doubleClickStage", opened)
  }

  /** Draw few lines and no new names until the camera has rested. Called whenever it moves or is dragged or zoomed. */
  private rests(): void {
    this.lines?.limit(MOVING_LINES)
    clearTimeout(this.resting)
    this.resting = setTimeout(() => {
      this.lines?.limit(Infinity)
      this.name()
      this.sigma.scheduleRender()
    }, RESTS_AFTER)
  }

  /** Draw now, and call `use` while the drawing can still be read: a browser clears it afterwards. */
  drawn(use: () => void): void {
    this.sigma.refresh()
    use()
  }

  /** The dot at a place in pixels of the container; of several, the one with the nearest centre. */
  at(x: number, y: number): number | null {
    const here = this.sigma.viewportToGraph({ x, y })
    const unit = this.unit()
    let closest: number | null = null
    let nearest = Infinity
    for (const concept of this.bySize) {
      if (!this.passing[concept]) continue
      const at = this.dot(concept)
      const distance = Math.hypot(at.x - here.x, at.y - here.y) * unit
      if (distance > this.sigma.scaleSize(at.radius) + REACH || distance >= nearest) continue
      closest = concept
      nearest = distance
    }
    return closest
  }

  /** Pixels per unit of length, equal in every direction. */
  private unit(): number {
    return this.sigma.graphToViewport({ x: 1, y: 0 }).x - this.sigma.graphToViewport({ x: 0, y: 0 }).x
  }

  /** Place and radius of a concept that has a place. */
  private dot(concept: number): { x: number; y: number; radius: number } {
    const { x, y, radius } = this.all
    return { x: x[concept] as number, y: y[concept] as number, radius: radius[concept] as number }
  }

  /** Replace all dots, and remove all edges; concepts without a place (dead ones) get no dot. */
  dots(dots: Dots, colours: Colours): void {
    this.all = dots
    this.colours = colours
    this.over = null
    this.bySize = [...dots.x.keys()].filter((concept) => this.has(concept))
    this.bySize.sort((a, b) => (dots.radius[b] as number) - (dots.radius[a] as number))
    this.show(new Uint8Array(dots.x.length).fill(1))
  }

  /** Give the same dots and edges other colours. */
  recolour(colours: Colours): void {
    this.colours = colours
    this.graph.updateEachEdgeAttributes((_, attributes) => {
      attributes.color = attributes.depth === "topEdges" ? colours.strong : colours.edge
      return attributes
    })
    this.lines?.outdated()
    this.layer?.outdated()
    this.sigma.scheduleRender()
  }

  /** Show the concepts that pass, without edges. */
  show(passing: Uint8Array): void {
    this.passing = passing
    this.graph.clear()
    this.selected = []
    this.thin = []
    this.lines?.outdated()
    this.layer?.outdated()
    this.name()
    this.sigma.scheduleRender()
  }

  /** The dots to draw, the largest first, so that smaller dots lie above them. */
  private instances(): Instances {
    const place = this.sigma.getNormalizationFunction()
    const shown = this.bySize.filter((concept) => this.passing[concept])
    const places = shown.flatMap((concept) => {
      const at = this.dot(concept)
      const { x, y } = place(at)
      return [x, y, at.radius]
    })
    const colours = shown.flatMap((concept) => [...channels(this.colours?.dot[concept] ?? "black")])
    return { places: new Float32Array(places), colours: new Uint8Array(colours) }
  }

  /** Choose the dots that may have a name: the selected ones, then the largest in the window. */
  private name(): void {
    const { width, height } = this.sigma.getDimensions()
    const [one, other] = [
      this.sigma.viewportToGraph({ x: -NAME_REACH, y: -NAME_REACH }),
      this.sigma.viewportToGraph({ x: width + NAME_REACH, y: height + NAME_REACH }),
    ]
    const isWithin = (value: number, a: number, b: number) => value >= Math.min(a, b) && value <= Math.max(a, b)
    const isSeen = (concept: number) => {
      const { x, y } = this.dot(concept)
      return isWithin(x, one.x, other.x) && isWithin(y, one.y, other.y)
    }
    const passing = this.bySize.filter((concept) => this.passing[concept])
    this.named = [...new Set([...this.first.filter((concept) => this.has(concept)), ...passing.filter(isSeen)])]
    this.named = this.named.slice(0, NAMED)
    const kept = passing[0] // one dot stays in the graph, since sigma draws no layer for an empty graph
    this.graph.forEachNode((node) => {
      if (Number(node) !== kept && !this.graph.degree(node)) this.graph.dropNode(node)
    })
    if (kept !== undefined) this.node(kept)
  }

  /** Dots whose names are written before those of all others. */
  nameFirst(concepts: readonly number[]): void {
    this.first = concepts
    this.name()
    this.sigma.scheduleRender()
  }

  private write(): void {
    if (!this.colours) return
    const dots = this.named.flatMap((concept) => {
      const at = this.place(concept)
      return at ? [{ ...at, text: this.all.label[concept] ?? "" }] : []
    })
    this.labels.draw(dots, this.colours.label, this.colours.ground)
  }

  /** Add a dot to sigma's graph. */
  private node(concept: number): void {
    if (this.graph.hasNode(concept)) return
    const { x, y, radius } = this.dot(concept)
    this.graph.addNode(concept, { x, y, size: radius })
  }

  /** Replace the edges of the whole map, given strongest first. */
  edges(edges: readonly Edge[]): void {
    this.graph.clearEdges()
    this.selected = []
    for (const edge of edges.slice(0, WITH_WIDTH)) {
      this.edge(edge, {
        size: 0.7 + 2 * edge.weight,
        opacity: opacity(edge),
        color: this.colours?.edge,
        depth: "edges",
      })
    }
    this.thin = edges.slice(WITH_WIDTH)
    this.lines?.outdated()
    this.sigma.scheduleRender()
  }

  /** The ends of the thin edges, in sigma's coordinates. */
  private ends(): Ends {
    const place = this.sigma.getNormalizationFunction()
    const values = this.thin.flatMap((edge) => {
      if (!this.has(edge.from) || !this.has(edge.to)) return []
      return [edge.from, edge.to].flatMap((concept) => {
        const { x, y } = place(this.dot(concept))
        return [x, y, opacity(edge)]
      })
    })
    return { values: new Float32Array(values), colour: this.colours?.edge ?? "black" }
  }

  /** Replace the edges of the selected concept, which are drawn above those of the whole map. */
  selectedEdges(edges: readonly Edge[]): void {
    for (const edge of this.selected) this.graph.dropEdge(edge)
    this.selected = edges.flatMap((edge) =>
      this.edge(edge, {
        size: 1.2 + 2.6 * edge.weight,
        opacity: 0.5 + 0.5 * edge.weight,
        color: this.colours?.strong,
        depth: "topEdges",
      }),
    )
  }

  /** Add an edge between two different dots; concepts without a place get no edge. Returns the key of the edge, if any. */
  private edge({ from, to }: Edge, attributes: Record<string, unknown>): string[] {
    if (from === to || !this.has(from) || !this.has(to)) return []
    this.node(from)
    this.node(to)
    return [this.graph.addUndirectedEdge(from, to, attributes)]
  }

  /** Whether a concept has a dot. */
  has(concept: number): boolean {
    return typeof this.all.x[concept] === "number" && typeof this.all.y[concept] === "number"
  }

  /** Place and radius of a dot in pixels of the container; null for a concept without a dot. */
  place(concept: number): { x: number; y: number; radius: number } | null {
    if (!this.has(concept)) return null
    const at = this.dot(concept)
    return { ...this.sigma.graphToViewport(at), radius: this.sigma.scaleSize(at.radius) }
  }

  camera(): Camera {
    const { x, y, ratio } = this.sigma.getCamera().getState()
    return { x, y, ratio }
  }

  move(camera: Partial<Camera>, animated = false): void {
    if (animated) void this.sigma.getCamera().animate(camera, { duration: 250 })
    else this.sigma.getCamera().setState(camera)
  }

  /** Zoom by a factor about the centre; a factor below 1 enlarges. */
  zoom(factor: number): void {
    this.move({ ratio: this.sigma.getCamera().getBoundedRatio(this.camera().ratio * factor) }, true)
  }

  /** Pan by a share of the window. */
  pan(dx: number, dy: number): void {
    const { x, y, ratio } = this.camera()
    this.move({ x: x + dx * ratio, y: y + dy * ratio }, true)
  }

  /** Move the camera only if a dot lies outside the window. */
  reveal(concept: number): void {
    const at = this.place(concept)
    if (!at) return
    const { width, height } = this.sigma.getDimensions()
    if (at.x > 0 && at.y > 0 && at.x < width && at.y < height) return
    const { x, y } = this.sigma.viewportToFramedGraph(at)
    this.move({ x, y }, true)
  }

  /** Call it after the container was shown again or changed its size. */
  resized(): void {
    this.sigma.resize(true)
    this.name()
    this.sigma.scheduleRender()
  }
}

function opacity(edge: Edge): number {
  return 0.22 + 0.5 * edge.weight
}
