// Save the last seconds, start, stop.
import { all, complain, find, onFacts, Refused, say, send, tell } from "./common.js";

const [save, start, stop] = [find("#save-last"), find("#start"), find("#stop")];
let busy = false; // and not a disabled button, which would lose the focus

/** Press a button once; ``after`` with the session that it made. */
function does(button, path, doing, after) {
  button.addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    complain("");
    if (doing) tell(say(doing));
    try {
      const { session } = await send(path, {}, 8000);
      if (after) after(session);
      else tell("");
    } catch (fault) {
      if (!(fault instanceof Refused)) throw fault;
      tell("");
      complain(fault);
    } finally {
      busy = false;
    }
  });
}

function show(facts) {
  const records = facts.recording !== null;
  if (start.hidden !== records) {
    const focused = document.activeElement === start || document.activeElement === stop;
    start.hidden = records;
    stop.hidden = !records;
    if (focused) (records ? stop : start).focus();
  }
  save.disabled = records || facts.refusal !== null || facts.remembered_s === 0;
  start.disabled = facts.refusal !== null && !records;
  for (const notice of all("[data-refusal]")) notice.hidden = notice.dataset.refusal !== facts.refusal;
  for (const place of all(".no-room")) place.textContent = facts.no_room;
  find("#remembered").textContent = say("today.js.remembered", { seconds: Math.min(15, facts.remembered_s) });
  find("#prompts").textContent = facts.prompts;
  find("#questions").hidden = facts.prompts === 0;
}
onFacts(show);

const toLabel = (session) => location.assign(`/label/${encodeURIComponent(session)}`);
does(save, "/api/record/save-last", "today.js.saving", toLabel);
does(start, "/api/record/start", "", null);
does(stop, "/api/record/stop", "today.js.stopping", toLabel);
