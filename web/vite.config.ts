import { defineConfig } from "vite";
import { readdirSync, existsSync } from "node:fs";
import { resolve } from "node:path";

// A page is a folder with an index.html; the front page is the one at the root.
const root = import.meta.dirname;
const folders = readdirSync(root).filter((name) => !/^(node_modules|dist|src|public)$/.test(name));
const pages = folders.filter((name) => existsSync(resolve(root, name, "index.html")));

export default defineConfig({
  base: "./", // a proxy may put the gateway below a path
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // nothing becomes a data: URL, which the policy of the pages forbids for all but images
    license: { fileName: "licenses.md" },
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: ["index.html", ...pages.map((name) => `${name}/index.html`)].map((path) => resolve(root, path)),
    },
  },
});
