// The choice between the wearer's model and a newer one.
import { complain, find, onFacts, Refused, submit } from "./common.js";

onFacts((facts) => {
  find("#keep-model").hidden = !facts.before;
  find("#take-model").hidden = !facts.newer;
});
for (const [button, path] of [["#keep-model", "/api/model/keep"], ["#take-model", "/api/model/take"]]) {
  find(button).addEventListener("click", async () => {
    complain("");
    try {
      await submit(path);
    } catch (fault) {
      if (!(fault instanceof Refused)) throw fault;
      complain(fault);
    }
  });
}
