// What both scripts need: options, a browser, and ears for what a page complains of.

import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

export const SIZES = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };
export const findings = new Set();

const options = process.argv.slice(2);
export const option = (name) => (options.includes(name) ? options[options.indexOf(name) + 1] : undefined);
export const argument = options[0]?.startsWith("--") ? undefined : options[0];

// playwright-core as it is installed in the current folder, with the Chromium that is named.
export function launch() {
  const { chromium } = createRequire(join(process.cwd(), "look.js"))("playwright-core");
  return chromium.launch({ executablePath: option("--chromium") ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
}

// Hand `say` what is wrong on a page: errors, and what is asked of any place but `own`.
export function listen(page, say, own = /^(file|data|blob|about):/) {
  page.on("console", (message) => message.type() === "error" && say(`console: ${message.text()}`));
  page.on("pageerror", (error) => say(`error: ${error.message}`));
  page.on("request", (request) => !own.test(request.url()) && say(`from elsewhere: ${request.url()}`));
  page.on("requestfailed", (request) => say(`not there: ${request.url()} (${request.failure()?.errorText})`));
}

export async function shoot(page, name) {
  if (!option("--shots")) return;
  mkdirSync(option("--shots"), { recursive: true });
  await page.screenshot({ path: join(option("--shots"), `${name.replaceAll("/", "-")}.png`) });
}

// A line a finding, a closing line, and the exit status.
export function report(what) {
  [...findings].sort().forEach((text) => console.log(text));
  console.log(`${what}: ${findings.size} findings`);
  process.exit(findings.size ? 1 : 0);
}
