// Pairing, language, unlocking.
import { all, complain, find, Refused, send } from "./common.js";

for (const button of all("[data-language]")) {
  button.addEventListener("click", async () => {
    await send("/api/language", { language: button.dataset.language });
    location.reload();
  });
}

async function enter(event, path, body, next) {
  event.preventDefault();
  complain("");
  try {
    await send(path, body);
    location.assign(next);
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    complain(fault);
    find("input", event.target).select();
  }
}

const pairing = find("#pair");
if (pairing) {
  const code = find("#code");
  if (location.hash.length > 1) {
    code.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname); // the code does not stay in the phone's history
  }
  pairing.addEventListener("submit", (event) => enter(event, "/api/pair", { code: code.value }, "/"));
}

const unlocking = find("#unlock");
if (unlocking) {
  const secret = find("#secret");
  find("#show").addEventListener("change", (event) => { secret.type = event.target.checked ? "text" : "password"; });
  unlocking.addEventListener("submit", (event) => enter(event, "/api/unlock", { words: secret.value }, "/"));
}
