// The types of the explorer's data files and of its server's answers. Paths are relative to the folder of index.html.
// Python writes the data (report/explorer/, explorer/), and src/data.ts reads it. With the TypeScript compiler,
// tests/explorer/browser/test_contract.py checks that what Python writes has these types. All JSON is UTF-8.
// Columnar tables have one array per column, all of one length. In concept tables, the index in an array is concept_id.

export interface Manifest {           // data/manifest.json, as a host serves it
  schema: 1
  live: boolean                       // false in published files, true from the server of `bridgescope explore`
  study: string
  items: boolean                      // false: published without captions and images (--no-items)
  title: string
  pairs: { images: number; captions: number; licence: string | null }
  split: string                       // the rows that concepts were counted on: "heldout" | "all"
  runs: Run[]                         // one per (model, sae, seed), in the order of the study
  views?: ViewDoc[]; macros?: MacroDoc[]; examples?: Catalog["examples"]   // in older runs, which lack data/catalog.json
  item_block: number                  // images per file of items/, each with its captions
  concept_block: number               // concepts per file of concept/
  maps: ItemMap[]                     // maps of the items; none without items
  files?: { path: string; bytes: number }[]  // published files of saes/, statistics/ and items/; absent from the live server
  page?: string | null                // file of the study's page; null where items were not published, absent in older runs
  firings: boolean                    // whether codes/firings-<n>.bin are there: in studies of at most 5,000 images
  definitions: Definitions            // added when the manifest is served; the dataset does not store them
}
export interface Definitions {        // the same as on the study's page
  unimodal: number                    // a modality score below it, or above one minus it, is unimodal
  min_firings: number                 // concepts with fewer firings are left out of modality shares
  verdicts: { holds: string; fails: string; open: string }        // the words for true, false and null of a finding's `holds`
}
export interface Run {
  key: string                         // "<model>/<sae>/<seed>": also the folder below data/runs/
  model: string; sae: string; seed: number
  concepts: number; dim: number; k: number; architecture: string
  layout: "umap" | "pca"              // how x and y were computed: "pca" for dictionaries of fewer than 64 concepts
  r2: number; r2_image: number; r2_text: number; l0: number; dead_fraction: number
  stability: number | null; floor_random: number | null; floor_matched: number | null
  bridges: number                     // rows of bridges.json
}
export interface ItemMap {            // one map of the images and captions of a model
  model: string
  by: "embeddings" | "codes"          // what was laid out; codes: those of the SAE <sae>, seed <seed>
  sae: string | null; seed: number | null
  items: number; images: number       // the images come first, then the captions, both by ascending id
  layout: "umap" | "umap-sample" | "pca"  // umap-sample: UMAP of `fitted` items, the others interpolated
  fitted: number
  file: string                        // int16 x [items], int16 y [items], 32767 for 1; all binary files are little-endian
  ids: string                         // float64 id [items], then uint8 jackknife group [items]
}                                     // data/runs/<key>/codes/firings-<n>.bin, <concept_block> concepts: uint32 start
                                      // [concept_block + 1], uint32 number of the item [firings], float32 activation [firings]
export interface Catalog {            // data/catalog.json, for the SQL page
  views: ViewDoc[]                    // the catalog's views with the documentation of their columns
  macros: MacroDoc[]                  // the catalog's table macros: functions that return a table
  examples: { title: string; query: string }[]
}
export interface ViewDoc { name: string; purpose: string; columns: { name: string; type: string; doc: string }[] }

export interface MacroDoc { name: string; call: string; purpose: string; inputs: string; columns: string }

export interface Concepts {           // data/runs/<key>/concepts.json, columnar; null where not defined (a dead concept)
  x: (number | null)[]; y: (number | null)[]      // the layout of the dictionary, both in [-1, 1], aspect kept
  name: string[]                      // distinctive words of its training captions, automatic; "" when there are none, or
                                      // when they do not find its held-out items better than chance
  name_score: (number | null)[]       // AUC of the name on held-out items; null when no encoder can score it
  name_score_low: (number | null)[]   // lower bound of its 95 % interval, null when the concept fires on too few items
  name_chance: (number | null)[]      // the score of the name of another concept of like energy
  energy: number[]; energy_image: number[]; energy_text: number[]
  rate_image: number[]; rate_text: number[]; firings: number[]
  modality_score: (number | null)[]; modality_auc: (number | null)[]; direction_accuracy: (number | null)[]
  align_mean_gap: (number | null)[]; align_logistic: (number | null)[]; align_lda: (number | null)[]; align_inlp: (number | null)[]
  monosemanticity: (number | null)[]
  label: string[]                     // the label that the concept tells apart best, "" without labels
  label_auc: (number | null)[]        // its AUC on held-out items
  stability: (number | null)[]        // mean cosine to the matches in the other seeds of the setting
}
export interface Bridges {            // data/runs/<key>/bridges.json, columnar, at most 20,000 rows, by |bridge| descending
  image_concept: number[]; text_concept: number[]; pairs: number[]; coactivation: number[]; cosine: number[]
  bridge: number[]; covariance_bridge: number[]; correlation_bridge: number[]
}
export interface ConceptDetails {     // data/runs/<key>/concept/<floor(id / concept_block)>.json
  [concept: string]: ConceptDetail
}
export interface ConceptDetail {
  images: { item: number; activation: number }[]      // top 24, by activation descending
  texts: { item: number; activation: number }[]       // top 24
  histogram: { edges: number[]; image: number[]; text: number[] }   // counts of non-zero activations in manifest.split,
                                      // 20 equal bins, 21 edges; all three empty when the concept fires on no item at all
  words: { word: string; score: number }[]            // at most 8, the most distinctive first
  matches: { key: string; concept: number; cosine: number }[]       // in every other seed of the setting
  labels?: {                          // the best label for each name of labels, best first; empty or absent without labels
    modality: string; name: string; label: string; auc: number | null; null_q975: number | null; above_null: boolean | null
  }[]
  levels?: {                          // none where every firing is in the top lists; highest level first
    level: number                     // .75, .5, .25: quantile of the activations on which it fires; 0: the lowest activations
    images: { item: number; activation: number }[]; texts: { item: number; activation: number }[]     // 3 of each, descending
  }[]
  partners?: {                        // in the SAE of the same setting and seed of every other model: highest correlation of codes
    key: string; modality: string; concept: number; correlation: number; floor: number | null
  }[]
  members?: { key: string; concept: number; cosine: number }[]      // of a consensus SAE: the seeds' concepts that it was made from
  together?: {                        // at most 5 concepts whose codes correlate most with its own, on images and on captions
    images: { concept: number[]; correlation: number[] }; texts: { concept: number[]; correlation: number[] }
  }
}
export type ItemId = number           // image_id or pair_id (a caption); the prefix "i" or "t" tells them apart in addresses
export interface ItemIndex {          // data/items/index.json: for each item, the n of the file that holds it
  images: Record<string, number>
  texts: Record<string, number>
}
export interface Items {              // data/items/<n>.json
  images: Record<string, { key: string; width: number; height: number; captions: ItemId[]; thumb: string | null; split: string }>
  texts: Record<string, { caption: string; image: ItemId; split: string }>
}                                     // thumb: path below the site, "thumbs/<id>.webp", longest side 160 pixels
export interface ItemCodes {          // data/runs/<key>/codes/<n>.json, n as in items/: concepts that fire on an item
  images: Record<string, { concept: number[]; activation: number[]; share: number[]; bias: number }>
  texts: Record<string, { concept: number[]; activation: number[]; share: number[]; bias: number }>
}                                     // share: activation * <D_c, x_hat> / <x_hat, x_hat>, bias: <b, x_hat> / <x_hat, x_hat>:
                                      // shares and bias add up to 1 (a share may be negative); activation descending
// data/runs/<key>/dictionary.bin: float16, little-endian, (concepts + 3) rows of `dim` numbers: the direction of each concept,
// then the decoder's bias, the mean of images and the mean of captions (0 without centring).
export interface PairItem {           // inner products of an embedding x of norm 1; `own`, `on_text`, `on_image` are 16-bit integers
  own: string                         // in base64, 32767 for 1: <x, D_c> for the concepts of its codes, in their order
  bias: number                        // <x, decoder's bias>
  mean: number                        // <x, mean of the other modality>
}
export interface PairBlock {          // data/runs/<key>/pairs/<n>.json, n as in items/: images with their own captions
  images: Record<string, PairItem>
  texts: Record<string, PairItem & {
    similarity: number                // of the caption and its image
    on_text: string                   // <x_image, D_c> for the concepts of the caption's codes
    on_image: string                  // <x_text, D_c> for the concepts of the image's codes
  }>
}
export interface Words {              // data/runs/<key>/words.json, for the search of concepts
  [concept: string]: string           // its words joined by spaces
}
export interface CaptionSearch { id: number[]; caption: string[] }   // data/items/search.json: every caption shown
export interface Compare {            // data/compare.json
  findings: {                         // rows of the view `findings`
    model: string; sae: string; question: string; claim: string; figure: number | null
    low: number | null; high: number | null; interval_over: string
    null_name: string; null_mean: number | null; null_low: number | null; null_high: number | null
    rule: string; threshold: number | null; margin: number | null
    bound: number | null              // the whole interval must be above it; below it if the rule begins with "below"
    seeds: number; answer: string; verdict: string; holds: boolean | null; note: string | null
  }[]
  frozen?: {
    model: string; sae: string; figure: string; trained: number; low: number | null; high: number | null
    frozen_decoder: number | null; soft_frozen_decoder: number | null; frozen_encoder: number | null
    frozen_decoder_random: number | null; soft_frozen_decoder_random: number | null; frozen_encoder_random: number | null
    best_frozen: number; best_twin: string; bound: number | null; excess: number | null
  }[]                                 // rows of the macro frozen_figures; none without frozen twins
  figures: { id: string; title: string; caption: string; svg: string; png: string; sql: string; table: string | null }[]  // files below figures/
  settings: Record<string, unknown>[] // rows of the view `saes`, as they are
}

// Live only (bridgescope explore). Answers are JSON, except for CSV and images. Answers to POST are not cached.
export interface SqlAnswer {          // POST api/sql {query: string}; POST api/sql.csv and api/sql.parquet answer it as files
  columns: { name: string; type: string }[]
  rows: unknown[][]
  truncated: boolean                  // there are more rows than the limits of the server allow
  seconds: number
}
export interface Encoded {            // POST api/encode?key=<run key>; body: JSON {text: string}, or the bytes of an image (image/*)
  modality: "image" | "text"
  concepts: { concept: number; activation: number; share: number }[]   // by activation descending
  bias: number                        // the share of the decoder's bias
  nearest: { modality: "image" | "text"; item: ItemId; caption: string | null; thumb: string | null; cosine: number }[]
}                                     // nearest: 12 of the other modality, then 12 of the same
export interface Below {              // GET api/below/<concept>?key=<run>: the items nearest to its threshold among those with code 0
  items: { modality: "image" | "text"; item: ItemId; caption: string | null; thumb: string | null; pre_activation: number }[]
}
export interface PairRank { rank: number; tied: number }  // rank: 1 + the items of larger or equal cosine; tied: of equal cosine
export interface PairOutcome {        // without some concepts: inner product and cosine of the pair, and its two ranks
  inner: number; similarity: number; caption: PairRank; image: PairRank
}
export interface PairRange { mean: number; low: number; high: number }
export interface PairLedger {         // POST api/pair?key=<run key>; body: JSON {image, caption, without?: number[], ranks?: boolean}
  key: string                         // image: an image_id, or a picture in base64; caption: a pair_id, or a text
  image: number | null; caption: number | null               // ids of items of the study
  similarity: number                  // the sum of `terms`
  terms: Record<string, number>       // "concepts" is the sum of `rows`; the others as in docs/definitions.md, "Pair ledger"
  rows: { image_concept: number; text_concept: number; contribution: number }[]  // the largest absolute value first
  codes: Record<"image" | "text", { concept: number[]; activation: number[] }>             // by activation descending
  gallery: { images: number; captions: number; tie: number } | null  // the held-out items among which ranks are counted
  before: PairOutcome | null          // gallery, before and what_if are null when `ranks` is false
  what_if: {                          // null when no concept is left out
    terms: Record<string, number>     // the terms of what is left; their sum is after.inner
    concepts: number[]; energy: number; after: PairOutcome; draws: number  // draws: random sets of at most this energy
    random: Record<"inner" | "similarity" | "caption" | "image" | "energy", PairRange>
  } | null
}
export interface UserLabel { key: string; concept: number; label: string; time: string }  // time: ISO 8601, UTC
export interface UserLabels {         // data/labels.json, also by publish --labels; POST api/labels {key, concept, label}: "" removes it
  labels: UserLabel[]
}
export interface ApiError {           // status 400 (input), 403 (origin), 404 (no such page), 408 (time), 413 (body too large), 500
  error: string
}
// GET  api/image/<image_id> -> the image itself (for the view of an item), when the store holds its bytes
// With items = false there are no items/, codes/, pairs/ and thumbs/, and the top lists are empty.
// In a study of more than 5,000 images, items/ and thumbs/ hold only the images in a top list and the images of
// captions in a top list; codes/<n>.json may lack an item that is in items/<n>.json.
