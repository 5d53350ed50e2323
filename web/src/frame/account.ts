/** An account: the form to sign in with one, or to make one. */
import { useSignal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect, useRef } from "preact/hooks";
import { callAs, Problem, reason } from "./api.ts";
import { many } from "./format.ts";
import { ended } from "./session.ts";
import { enter, type Tokens } from "./tokens.ts";

type Name = "name" | "mail" | "password";
type Wrong = Partial<Record<Name | "form", string>>;

/** As accounts has it (accounts/limits.py): said before it is asked. */
const PASSWORD_LEAST = 10;

/** What is wrong with what was typed: nothing of it leaves the page. */
function faults(given: Record<Name, string>, creating: boolean): Wrong {
  const wrong: Wrong = {};
  if (creating && !given.name.trim()) wrong.name = "Say how you want to be called.";
  if (!/^[^@\s]+@[^@\s]+\.[^@\s]+$/.test(given.mail.trim())) wrong.mail = "Give an address like ann@example.org.";
  if (!given.password) wrong.password = "Give your password.";
  else if (creating && given.password.length < PASSWORD_LEAST)
    wrong.password = `A password has at least ${PASSWORD_LEAST} characters; this one has ${given.password.length}.`;
  return wrong;
}

/** What accounts refused, at the field that it is about. */
function refused(error: unknown, creating: boolean): Wrong {
  if (!(error instanceof Problem)) return { form: reason(error) };
  if (error.status === 429)
    return { form: `Too many tries. Try again ${error.wait ? `in ${many(Math.ceil(error.wait), "second")}` : "later"}.` };
  if (error.code === "wrong_password")
    return creating
      ? { mail: "There is an account with this address, and another password. Sign in, or use another address." }
      : { password: "The address or the password is wrong." };
  if (error.status === 422)
    for (const [name, word] of [["password", "password"], ["name", "a name"], ["mail", "address"]] as const)
      if (error.message.includes(word)) return { [name]: `${error.message}.` };
  return { form: error.message };
}

async function begin(given: Record<Name, string>, creating: boolean): Promise<void> {
  const { mail, password } = given;
  // Answered alike where the address has an account: whether it is theirs, the login says.
  if (creating) await callAs("", "POST", "accounts/users/register", given);
  const tokens = await callAs<Tokens>("", "POST", "accounts/users/login", { mail, password });
  // A name is nice to have: without an answer the address will do.
  const found = await callAs<{ name: string }>(tokens.access, "GET", "accounts/users/me").catch(() => undefined);
  enter(tokens, found?.name ?? mail);
}

interface FieldOf {
  name: Name;
  label: string;
  type?: string;
  complete: string;
  value?: string;
  hint?: string;
  wrong: Wrong;
}

function Field({ name, label, type = "text", complete, value, hint, wrong }: FieldOf) {
  const told = wrong[name];
  const about = [hint && `${name}-hint`, told && `${name}-wrong`].filter(Boolean).join(" ");
  return html`<div class="field">
    <label for=${`account-${name}`}>${label}</label>
    <input id=${`account-${name}`} name=${name} type=${type} autocomplete=${complete} defaultValue=${value ?? ""}
      required aria-invalid=${told ? "true" : null} aria-describedby=${about || null}
      autocapitalize=${name === "name" ? "words" : "none"} spellcheck="false" />
    ${hint && html`<p class="hint" id=${`${name}-hint`}>${hint}</p>`}
    ${told && html`<p class="wrong" id=${`${name}-wrong`}>${told}</p>`}
  </div>`;
}

/** Sign in with an account, or make one. `instead`: as whom this tab is here already, and why that will not do. */
export function AccountForm({ instead }: { instead?: string }) {
  const creating = useSignal(false);
  const mail = useSignal("");
  const shown = useSignal(false);
  const busy = useSignal(false);
  const wrong = useSignal<Wrong>({});
  const form = useRef<HTMLFormElement>(null);
  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy.value) return;
    const data = new FormData(event.target as HTMLFormElement);
    const field = (name: Name) => String(data.get(name) ?? "");
    const given = { name: field("name").trim(), mail: field("mail").trim(), password: field("password") };
    mail.value = given.mail;
    wrong.value = faults(given, creating.value);
    if (Object.keys(wrong.value).length) return;
    busy.value = true;
    try {
      await begin(given, creating.value);
    } catch (error) {
      wrong.value = refused(error, creating.value);
    } finally {
      busy.value = false;
    }
  };
  // What is wrong is read where the focus goes: to its field.
  useEffect(() => form.current?.querySelector<HTMLElement>("[aria-invalid]")?.focus(), [wrong.value]);
  const turn = () => {
    const typed = form.current?.querySelector<HTMLInputElement>("#account-mail")?.value;
    mail.value = typed ?? mail.value;
    wrong.value = {};
    creating.value = !creating.value;
    setTimeout(() => form.current?.querySelector("input")?.focus()); // the button that had the focus is another now
  };
  const made = creating.value;
  const of = wrong.value;
  const why = instead ?? ended.value;
  return html`<form class="card" ref=${form} key=${made} method="post" noValidate onSubmit=${send} aria-labelledby="account">
    <h2 id="account">${made ? "Create account" : "Sign in"}</h2>
    ${why && html`<p class=${`notice ${instead ? "warn" : "bad"}`} role="alert">${why}</p>`}
    ${of.form && html`<p class="notice bad" role="alert">${of.form}</p>`}
    ${made && html`<${Field} name="name" label="Name" complete="name" hint="What others see." wrong=${of} />`}
    <${Field} name="mail" label="Mail address" type="email" complete="username" value=${mail.value} wrong=${of} />
    <${Field} name="password" label="Password" type=${shown.value ? "text" : "password"}
      complete=${made ? "new-password" : "current-password"} hint=${made ? `At least ${PASSWORD_LEAST} characters.` : undefined}
      wrong=${of} />
    <label class="tick"><input type="checkbox" checked=${shown.value} onChange=${() => {
      shown.value = !shown.value;
    }} /> Show the password</label>
    <div class="actions">
      <button type="submit" aria-disabled=${busy.value ? "true" : null}>${busy.value ? "One moment …" : made ? "Create account" : "Sign in"}</button>
      <button class="quiet" type="button" onClick=${turn}>${made ? "I have an account" : "Create account"}</button>
    </div>
    <p class="hint">You stay signed in in this tab alone, until you close it.</p>
  </form>`;
}
