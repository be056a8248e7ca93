// The passphrase, and the recovery key, which is shown once. Neither is kept on the phone.
import { all, complain, find, Refused, say, send } from "./common.js";

const form = find("#secure");
const [first, second] = [find("#passphrase"), find("#repeated")];
const consent = JSON.parse(sessionStorage.getItem("consent") ?? "null");
if (consent === null) location.replace("/consent");

function goOn() {
  sessionStorage.removeItem("consent");
  location.assign(consent.kinds.includes("capture") ? "/fit?first=1" : "/ready");
}

for (const choice of all("[name=how]")) {
  choice.addEventListener("change", () => {
    const locked = find("#by-passphrase").checked;
    find("#words-of-it").hidden = !locked;
    first.required = second.required = locked;
  });
}
find("#show").addEventListener("change", (event) => {
  first.type = second.type = event.target.checked ? "text" : "password";
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const locked = find("#by-passphrase").checked;
  if (locked && first.value.length < 8) return complain(say("secure.js.short"));
  if (locked && first.value !== second.value) return complain(say("secure.js.differ"));
  complain("");
  find("button", form).disabled = true;
  try {
    const answer = await send("/api/set-up", { ...consent, passphrase: locked ? first.value : null });
    if (answer.recovery === null) return goOn();
    find("#recovery-key").textContent = answer.recovery;
    form.hidden = true;
    find("#recovery").hidden = false;
    find("#recovery").focus();
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    complain(fault);
    find("button", form).disabled = false;
  }
});
find("#noted").addEventListener("change", (event) => { find("#go-on").disabled = !event.target.checked; });
find("#go-on").addEventListener("click", goOn);
