/** Money as people read it: from minor units, with as many of them as the currency has. */
const formats = new Map<string, Intl.NumberFormat>();

export function money(minor: number, currency: string): string {
  let format = formats.get(currency);
  if (format === undefined) {
    format = new Intl.NumberFormat(undefined, { style: "currency", currency });
    formats.set(currency, format);
  }
  return format.format(minor / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2));
}
