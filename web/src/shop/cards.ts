/** The cards of the simulated bank, and the form that asks for one. */
import { html } from "htm/preact";
import type { ComponentChildren } from "preact";

/** As the acquirer has them (ecommerce/acquirer/rules.py): number, name, what it does. */
const CARDS = [
  ["card_ok", "Pays", "The bank says yes at once."],
  ["card_slow", "Slow bank", "It says yes, and thinks first."],
  ["card_declined", "Is declined", "Not enough money: you may try another card, three in all."],
  ["card_stolen", "Reported stolen", "Declined for good: the order ends."],
  ["card_silent", "Never answers", "The order waits, and ends unpaid after 15 minutes, unless you cancel it."],
] as const;

/** Why a card was declined, in words. */
const WHY: Record<string, string> = {
  insufficient_funds: "there is not enough money on it",
  stolen_card: "it was reported stolen",
  unknown_card: "the bank does not know it",
};
export const declined = (code: string): string => WHY[code] ?? code;

export function Cards(props: {
  label: string;
  button: ComponentChildren;
  busy: boolean;
  send: (method: string) => unknown;
  children?: ComponentChildren;
}) {
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    const method = new FormData(event.target as HTMLFormElement).get("method");
    if (typeof method === "string" && !props.busy) props.send(method);
  };
  return html`<form class="card pay" method="post" onSubmit=${send}>
    <fieldset>
      <legend>${props.label}</legend>
      <p class="hint">No money moves: these cards are of a simulated bank.</p>
      ${CARDS.map(
        ([method, name, does], n) => html`<label class="choice">
          <input type="radio" name="method" value=${method} defaultChecked=${n === 0} />
          <span><strong>${name}</strong> <span class="hint">${does}</span></span>
        </label>`,
      )}
    </fieldset>
    ${props.children}
    <button type="submit" aria-disabled=${props.busy ? "true" : null}>${props.button}</button>
  </form>`;
}
