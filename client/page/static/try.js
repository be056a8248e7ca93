// Ten seconds that are looked at and deleted.
import { complain, count, find, Refused, say, send } from "./common.js";
import { Replay } from "./replay.js";

const [begin, waiting, seen] = [find("#begin"), find("#waiting"), find("#seen")];
const replay = new Replay();

begin.addEventListener("click", async () => {
  complain("");
  begin.hidden = true;
  waiting.hidden = false;
  const begun = performance.now();
  const ticking = setInterval(() => { find("#passed").value = (performance.now() - begun) / 1000; }, 100);
  try {
    const answer = await send("/api/try-out", {});
    find("#counts").textContent = say("try.js.counts", { frames: count(answer.frames), events: count(answer.events) });
    await replay.load("/api/try-out/replay");
    seen.hidden = false;
    seen.focus();
    replay.start();
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    complain(fault);
    begin.hidden = false;
  } finally {
    clearInterval(ticking);
    waiting.hidden = true;
  }
});

for (const way of [find("#delete"), find("#leave"), find("#fit-again")]) {
  way.addEventListener("click", async (event) => {
    event.preventDefault();
    await send("/api/try-out/delete").catch(() => {}); // it is forgotten in two minutes all the same
    location.assign(way.href ?? "/ready");
  });
}
