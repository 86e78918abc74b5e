// Writes numbers, in the same way in every view.

const MINUS = "−"

/** Three significant digits, with an exponent only below 1e-4; a dash for a missing value. */
export function number(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–"
  if (value === 0) return "0"
  const size = Math.abs(value)
  const text =
    size < 1e-4
      ? size.toExponential(digits - 1)
      : size.toFixed(Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size)))))
  return value < 0 ? MINUS + text : text
}

/** A share in [-1, 1] as a percentage. */
export function percent(value: number | null | undefined, digits = 1): string {
  if (value === null || value === undefined) return "–"
  const text = `${(Math.abs(value) * 100).toFixed(digits)}%`
  return value < 0 ? MINUS + text : text
}

/** A correlation, cosine or score: two decimals, with its sign. */
export function score(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–"
  const text = Math.abs(value).toFixed(2)
  return value < 0 && text !== "0.00" ? MINUS + text : text
}

/** A whole number with separators of thousands. */
export function count(value: number): string {
  return value.toLocaleString("en")
}

/** "1 pair", "2 pairs". */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`
}
