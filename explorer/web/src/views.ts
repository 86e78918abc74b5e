// The one list of views. To add one, write its file below views/ and give it an entry here: addresses, the bar, titles
// and loading are derived from this list.

import type { View } from "./page"

/** A property of the manifest without which a view has nothing to show. */
export type Need = "live" | "items" | "files"

export interface ViewEntry {
  title: string
  /** Whether the bar at the top links to the view; the links stand in the order of this list. */
  inBar: boolean
  needs?: Need
  /** Loads the code of the view once: when the view is first opened, or shortly after any first view is drawn. */
  load: () => Promise<View>
}

/** Views by the name that stands in the address. The code of the map includes the drawing library. */
export const VIEWS = {
  map: {
    title: "Map",
    inBar: true,
    load: async (): Promise<View> => (await import("./map/view")).mapView,
  },
  items: {
    title: "Items",
    inBar: true,
    needs: "items",
    load: async (): Promise<View> => (await import("./items/view")).itemsView,
  },
  concept: {
    title: "Concept",
    inBar: false,
    load: async (): Promise<View> => (await import("./views/concept")).conceptView,
  },
  bridges: {
    title: "Bridges",
    inBar: true,
    load: async (): Promise<View> => (await import("./views/bridges")).bridgesView,
  },
  item: {
    title: "Item",
    inBar: false,
    needs: "items",
    load: async (): Promise<View> => (await import("./views/item")).itemView,
  },
  pair: {
    title: "Pair",
    inBar: false,
    needs: "items",
    load: async (): Promise<View> => (await import("./views/pair")).pairView,
  },
  compare: {
    title: "Compare",
    inBar: true,
    load: async (): Promise<View> => (await import("./views/compare")).compareView,
  },
  sql: {
    title: "SQL",
    inBar: true,
    needs: "live",
    load: async (): Promise<View> => (await import("./views/sql")).sqlView,
  },
  try: {
    title: "Try it",
    inBar: true,
    needs: "live",
    load: async (): Promise<View> => (await import("./views/try")).tryView,
  },
  files: {
    title: "Files",
    inBar: true,
    needs: "files",
    load: async (): Promise<View> => (await import("./views/files")).filesView,
  },
  search: {
    title: "Search",
    inBar: false,
    load: async (): Promise<View> => (await import("./views/search")).searchView,
  },
} as const satisfies Record<string, ViewEntry>

export type ViewName = keyof typeof VIEWS

/** The view that opens when the address names no known view. */
export const FIRST_VIEW: ViewName = "map"

export const viewNames = Object.keys(VIEWS) as ViewName[]

/** The entry of a view, with its optional properties. */
export function entryOf(name: ViewName): ViewEntry {
  return VIEWS[name]
}
