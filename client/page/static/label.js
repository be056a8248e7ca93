// What was it? The model's own guess is shown only after the wearer has chosen.
import { complain, find, Refused, say, seconds, send, submit, sure, tell } from "./common.js";
import { Replay } from "./replay.js";

const place = find("#label");
const { session } = place.dataset;
const span = place.dataset.span === undefined ? null : Number(place.dataset.span);
const whole = Number(place.dataset.seconds);
const LONGEST = Number(place.dataset.longest);
const form = find("#answer");
const SOON_MS = 300;

function does(element, kind, act) {
  element?.addEventListener(kind, async (event) => {
    event.preventDefault();
    complainHere("");
    try {
      await act(event);
    } catch (fault) {
      if (!(fault instanceof Refused)) throw fault;
      complainHere(fault);
    }
  });
}
const complainHere = (what) => (find(".wrong") ? complain : tell)(what);

// The pictures, and the part of the recording that they are of.
const [from, to] = [find("#from"), find("#to")];
if (from) {
  const replay = new Replay();
  const ofMicros = (us) => Number(us) / 1e6;
  const micros = (input) => Math.round(1e6 * Number(input.value));
  const write = () => {
    find("#from-now").textContent = seconds(from.value);
    find("#to-now").textContent = seconds(to.value);
  };
  from.value = span === null ? 0 : ofMicros(place.dataset.from);
  to.value = span === null ? Math.min(whole, LONGEST) : ofMicros(place.dataset.to);
  const show = async () => {
    write();
    const end = Math.min(micros(to), micros(from) + 1e6 * LONGEST);
    const asked = new URLSearchParams({ from_us: micros(from), to_us: end });
    if (!(await replay.load(`/api/replay/${encodeURIComponent(session)}?${asked}`, Number(from.value)))) {
      for (const part of [find(".replay"), find(".player")]) part.hidden = true;
      find("#no-pictures").hidden = false;
    }
    place.dataset.loaded = "yes";
  };
  let soon;
  for (const one of [from, to]) {
    one.addEventListener("input", () => {
      if (Number(to.value) < Number(from.value)) (one === from ? to : from).value = one.value;
      write();
    });
    // A key that is held down changes it many times a second; each time the wearable would decode half a minute.
    one.addEventListener("change", () => {
      clearTimeout(soon);
      soon = setTimeout(show, SOON_MS);
    });
  }
  show();
  const bounds = () => ({ start_us: micros(from), end_us: micros(to) });
  does(find("#do-trim"), "click", async () => {
    await submit("/api/label/trim", { span, ...bounds() });
    tell(say("label.js.trimmed"));
  });
  does(find("#do-add"), "click", async () => {
    const answer = await submit("/api/spans", { session, ...bounds() });
    location.assign(`/label/${encodeURIComponent(session)}?span=${answer.span}`);
  });
}

const name = (label) => say(`emotion.${label}`);
does(form, "submit", async () => {
  const chosen = new FormData(form);
  if (!chosen.has("label")) return complain(say("label.js.choose"));
  const intensity = chosen.has("intensity") ? Number(chosen.get("intensity")) : null;
  const answer = await submit("/api/label", { span, label: chosen.get("label"), intensity });
  find("#guess-said").textContent = say("label.js.saved", { label: name(answer.label) });
  find("#guess-model").textContent =
    answer.predicted === null ? say("label.js.no_guess")
    : answer.predicted === answer.label ? say("label.js.same")
    : say("label.js.other", { predicted: name(answer.predicted) });
  form.hidden = true;
  find("#undo-earlier")?.remove();
  find("#guess").hidden = false;
  find("#guess").focus();
});

async function undo() {
  const answer = await submit("/api/label/undo", { span });
  for (const choice of form.elements) {
    if (choice.name === "label") choice.checked = choice.value === answer.label;
    if (choice.name === "intensity") choice.checked = choice.value === String(answer.intensity);
  }
  find("#guess").hidden = true;
  find("#undo-earlier")?.remove();
  form.hidden = false;
  tell(say("label.js.undone"));
  find("#main").focus();
}
does(find("#undo"), "click", undo);
does(find(".undo"), "click", undo);

// Tapping the chosen strength again takes it back: it is optional.
let strength = find("[name=intensity]:checked")?.value;
find("#strength")?.addEventListener("click", (event) => {
  if (event.target.name !== "intensity") return;
  if (event.target.value === strength) event.target.checked = false;
  strength = event.target.checked ? event.target.value : undefined;
});

const discard = find("#discard");
does(discard, "click", async () => {
  if (!(await sure(discard.dataset.question))) return;
  await send("/api/sessions/discard", { session });
  location.assign("/history");
});
const discardPart = find("#discard-part");
does(discardPart, "click", async () => {
  if (!(await sure(discardPart.dataset.question))) return;
  await send("/api/spans/discard", { span });
  location.assign(`/label/${encodeURIComponent(session)}`);
});
