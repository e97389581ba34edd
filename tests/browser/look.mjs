// Opens every page of the built book at desktop and phone width, from the file system, and says what a reader would see wrong:
// broken links, missing pictures, errors on the console, requests to elsewhere, pages wider than the screen, empty pages.
//
//   npm install playwright-core      (anywhere; NODE_PATH or the current folder tells where)
//   node tests/browser/look.mjs build/book/html [--chromium chromium] [--shots FOLDER] [--only PART]
//
// Exit status: 0 without a finding, 1 with some (a line each), 2 for a bad argument.

import { existsSync, readdirSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { SIZES, argument as folder, findings, launch, listen, option, report, shoot } from "./watch.mjs";

if (!folder || !existsSync(join(folder, "index.html"))) {
  console.error(`folder=${folder}: must be a built book, with an index.html`);
  process.exit(2);
}

const root = resolve(folder);
const pages = readdirSync(root, { recursive: true })
  .filter((name) => name.endsWith(".html") && !name.startsWith("_") && name.includes(option("--only") ?? ""))
  .sort();
const targets = new Map(); // file -> anchors that are asked of it, and by whom
const anchors = new Map(); // file -> the ids that it has

function look() {
  const broken = [...document.images].filter((i) => i.complete && i.naturalWidth === 0).map((i) => i.getAttribute("src"));
  const width = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll("article *")].filter((e) => {
    if (e.getBoundingClientRect().right <= width + 2 || !e.checkVisibility()) return false;
    for (let p = e.parentElement; p; p = p.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(p).overflowX)) return false; // scrolls by itself
    return true;
  });
  return {
    broken,
    overflow: document.documentElement.scrollWidth - width,
    wide: wide.slice(0, 1).map((e) => `${e.tagName.toLowerCase()}.${e.className}`),
    words: (document.querySelector("article")?.innerText ?? "").split(/\s+/).length,
    ids: [...document.querySelectorAll("[id]")].map((e) => e.id),
    links: [...document.querySelectorAll("a[href]")].map((a) => a.href),
  };
}

const browser = await launch();
for (const [size, viewport] of Object.entries(SIZES)) {
  const context = await browser.newContext({ viewport, isMobile: size === "phone", hasTouch: size === "phone" });
  const page = await context.newPage();
  let name = "";
  const say = (text) => findings.add(`${name} (${size}): ${text}`);
  listen(page, say);
  for (name of pages) {
    await page.goto(pathToFileURL(join(root, name)).href, { waitUntil: "load" });
    await page.evaluate(() => document.querySelectorAll("img[loading=lazy]").forEach((i) => (i.loading = "eager")));
    await page.waitForFunction(() => [...document.images].every((i) => i.complete), null, { timeout: 10000 }).catch(() => say("pictures"));
    const seen = await page.evaluate(look);
    seen.broken.forEach((src) => say(`picture missing: ${src}`));
    if (seen.overflow > 0) say(`${seen.overflow} px wider than the screen (${seen.wide})`);
    if (seen.words < 10 && !["search.html"].includes(name)) say("is empty");
    anchors.set(join(root, name), new Set(seen.ids));
    for (const href of seen.links) {
      if (!href.startsWith("file:")) continue;
      const url = new URL(href);
      const at = fileURLToPath(url.origin === "null" ? `file://${url.pathname}` : url);
      targets.set(`${at}${url.hash}`, { at, hash: decodeURIComponent(url.hash.slice(1)), from: name });
    }
    await shoot(page, `${name}.${size}`);
  }
  await context.close();
}
await browser.close();

for (const { at, hash, from } of targets.values()) {
  if (!existsSync(at)) findings.add(`${from}: link to ${relative(root, at)}, which is not there`);
  else if (hash && anchors.has(at) && !anchors.get(at).has(hash)) findings.add(`${from}: no #${hash} in ${relative(root, at)}`);
}
report(`${pages.length} pages, ${Object.keys(SIZES).length} widths`);
