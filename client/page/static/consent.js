// What is agreed to. On the first visit it waits in this tab until there is a key to keep it under.
import { all, complain, find, Refused, submit } from "./common.js";

const form = find("#consent");
const waiting = sessionStorage.getItem("consent");
if (waiting !== null && form.dataset.next === "/secure") {
  for (const box of all("[name=kind]", form)) box.checked = JSON.parse(waiting).kinds.includes(box.value);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const chosen = { kinds: all("[name=kind]:checked", form).map((box) => box.value), version: form.dataset.version };
  try {
    if (form.dataset.next === "/secure") sessionStorage.setItem("consent", JSON.stringify(chosen));
    else await submit("/api/consents", chosen);
    location.assign(form.dataset.next);
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    complain(fault);
  }
});
