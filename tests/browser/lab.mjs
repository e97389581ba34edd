// Opens JupyterLab on every notebook, as `make lab` does, and says what a reader would see wrong: cells that are not drawn,
// formulas that cannot be read, missing pictures, errors on the console, requests to elsewhere. A notebook with controls
// is run, and every control moved: one at which no picture changes is a finding. Nothing here is changed: notebooks and
// their reports are a copy's.
//
//   npm install playwright-core      (anywhere; run it from there)
//   node tests/browser/lab.mjs [PYTHON] [--chromium chromium] [--shots FOLDER] [--only PART]
//
// PYTHON: of the environment, .venv/bin/python unless named. Exit status: 0 without a finding, 1 with some (a line each), 2
// for a bad argument.

import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { SIZES, argument, findings, launch, listen, option, report, shoot } from "./watch.mjs";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const python = resolve(argument ?? join(root, ".venv/bin/python"));
if (!existsSync(python)) {
  console.error(`python=${python}: there is none; \`make env\` makes one`);
  process.exit(2);
}
const copy = mkdtempSync(join(tmpdir(), "vsmd-lab-"));
cpSync(join(root, "notebooks"), join(copy, "notebooks"), { recursive: true });
writeFileSync(join(copy, "pyproject.toml"), ""); // a repository of its own, whose reports are written beside
const notebooks = readdirSync(join(copy, "notebooks"))
  .filter((name) => name.endsWith(".ipynb") && name.includes(option("--only") ?? ""))
  .sort();

// All cells at once, however long the notebook, and no look for news.
const settings = {
  "notebook-extension/tracker": { windowingMode: "none" },
  "apputils-extension/notification": { fetchNews: "false", checkForUpdates: false },
};
for (const [name, values] of Object.entries(settings)) {
  const file = join(copy, "settings/@jupyterlab", `${name}.jupyterlab-settings`);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify(values));
}
const { VSMD_PROFILE, VSMD_PROGRESS, VSMD_REPORTS, ...variables } = process.env; // as for someone at the keyboard
const places = { JUPYTER_CONFIG_DIR: "config", JUPYTERLAB_SETTINGS_DIR: "settings", JUPYTERLAB_WORKSPACES_DIR: "workspaces" };
for (const [name, folder] of Object.entries(places)) variables[name] = join(copy, folder);
const flags = ["--no-browser", "--port=0", "--allow-root", "--ServerApp.open_browser=False"];
const server = spawn(python, ["-m", "jupyter", "lab", ...flags], { cwd: join(copy, "notebooks"), env: variables });
let said = "";
const address = await new Promise((found, failed) => {
  server.stderr.on("data", (text) => {
    said += text;
    const match = said.match(/(http:\/\/127\.0\.0\.1:\d+)\/lab\?token=(\w+)/);
    if (match) found({ at: match[1], token: match[2] });
  });
  server.on("exit", (code) => failed(new Error(`JupyterLab ended with ${code}: ${said.slice(-500)}`)));
});

function look() {
  const notebook = document.querySelector(".jp-Notebook");
  const words = [...notebook.querySelectorAll(".jp-MarkdownOutput")];
  return {
    cells: notebook.querySelectorAll(".jp-Cell").length,
    empty: words.filter((e) => !e.innerText.trim()).length,
    unread: words.filter((e) => /\$[^$\d\s][^$]*\$/.test(e.innerText)).map((e) => e.innerText.slice(0, 60)),
    formulas: [...notebook.querySelectorAll("mjx-merror")].map((e) => e.innerText),
    broken: [...notebook.querySelectorAll("img")].filter((i) => i.complete && !i.naturalWidth).map((i) => i.src.slice(0, 60)),
    errors: [...notebook.querySelectorAll(".jp-OutputArea-output")].map((e) => e.innerText).filter((text) => text.includes("Traceback")),
  };
}

// Run all cells; move every slider by a step, and see that the picture under them becomes another.
async function answers(page, say) {
  await page.getByRole("menuitem", { name: "Run", exact: true }).click();
  await page.locator("[data-command='runmenu:run-all']").first().click();
  const done = () => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map((e) => e.innerText);
    const outputs = [...document.querySelectorAll(".jp-OutputArea-output")].map((e) => e.innerText);
    return prompts.every((text) => /\[\d+\]/.test(text)) || outputs.some((text) => text.includes("Traceback"));
  };
  await page.waitForFunction(done, null, { timeout: 300000, polling: 500 });
  const handles = page.locator(".widget-slider .noUi-handle");
  const sliders = await handles.count();
  if (!sliders) say("no control is shown");
  const picture = () => document.querySelector(".widget-interact .jp-OutputArea img")?.src;
  for (let i = 0; i < sliders; i++) {
    const before = await page.evaluate(picture);
    const label = await page.locator(".widget-slider .widget-label").nth(i).innerText();
    const clock = Date.now();
    await handles.nth(i).focus();
    await page.keyboard.press(i === 1 ? "ArrowLeft" : "ArrowRight"); // R begins at its end
    const other = (old) => (document.querySelector(".widget-interact .jp-OutputArea img")?.src ?? old) !== old;
    const changed = await page.waitForFunction(other, before, { timeout: 10000, polling: 50 }).catch(() => undefined);
    if (changed) console.log(`control ${label}: another picture after ${((Date.now() - clock) / 1000).toFixed(1)} s`);
    else say(`control ${label}: no other picture within 10 s`);
  }
}

const browser = await launch();
try {
  for (const name of notebooks) {
    const say = (text) => findings.add(`${name}: ${text}`);
    const page = await browser.newPage({ viewport: SIZES.desktop });
    const { cells } = JSON.parse(readFileSync(join(copy, "notebooks", name), "utf8"));
    listen(page, say, new RegExp(`^(data|blob|about|${address.at.replace("http", "(http|ws)")})`));
    page.on("response", (response) => response.status() >= 400 && say(`${response.status()}: ${response.url()}`));
    await page.goto(`${address.at}/lab/tree/${name}?token=${address.token}&reset`, { waitUntil: "load" });
    const drawn = (n) => document.querySelectorAll(".jp-Notebook .jp-Cell").length >= n;
    await page.waitForFunction(drawn, cells.length, { timeout: 60000 }).catch(() => say("not all cells are drawn"));
    await page.waitForTimeout(3000); // formulas come after the words
    if (cells.some((cell) => cell.source.join("").includes("ipywidgets.interact"))) await answers(page, say);
    const seen = await page.evaluate(look);
    if (seen.cells !== cells.length) say(`${seen.cells} of ${cells.length} cells`);
    if (seen.empty) say(`${seen.empty} cells of words are empty`);
    for (const what of ["unread", "formulas", "broken", "errors"]) seen[what].forEach((text) => say(`${what}: ${text.slice(-200).replace(/\s+/g, " ")}`));
    await shoot(page, `lab-${name}`);
    await page.close();
  }
} finally {
  await browser.close();
  server.removeAllListeners("exit");
  server.kill("SIGTERM");
  await new Promise((ended) => server.on("exit", ended));
  rmSync(copy, { recursive: true, force: true });
}
report(`${notebooks.length} notebooks in JupyterLab`);
