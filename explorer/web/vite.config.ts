import { defineConfig } from "vite"

// Relative addresses, so that the built site opens from any folder of a static host.
export default defineConfig({
  base: "./",
  build: { target: "es2023", assetsInlineLimit: 0, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 1200 },
})
