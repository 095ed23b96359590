"""Which columns look as if they held personal data or secrets, judged by the words of their names.

A starter file must not publish by default what its reader would not have published on purpose, so a doubtful name
counts. What is left out is named, and can be added; what was published cannot be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cdc.init.words import words

_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """
    email emails mail correo courriel eposta
    phone phones telephone tel telefon telefono telefone telefoon mobile mobil cell cellphone handy fax gsm
    msisdn whatsapp
    firstname lastname middlename fullname forename surname maidenname nickname username givenname familyname
    vorname nachname prenom apellido apellidos cognome sobrenome voornaam achternaam imie nazwisko
    address addr street postcode postal zip zipcode plz adresse anschrift strasse rue direccion calle indirizzo
    endereco adres ulica
    birth birthday birthdate birthplace dob geburtsdatum geburtstag naissance nacimiento nascita nascimento
    geboortedatum
    gender sex religion ethnicity nationality geschlecht sexo
    ssn nin bsn nif dni cpf curp nino passport taxid steuernummer ausweis license licence
    iban bic card cards creditcard cardnumber cvv cvc pan kontonummer salary wage income gehalt
    password passwords passwd passwort kennwort contrasena senha wachtwoord haslo pwd passphrase
    token tokens jwt secret secrets apikey credential credentials otp totp mfa pin salt cookie
    ip ipaddress ipaddr useragent fingerprint biometric geolocation gps
    diagnosis diagnoses allergy disability medical signature
    """,
    )
)

_PHRASES: Final = frozenset(
    re.findall(
        r"\w+",
        """
    e_mail first_name last_name middle_name full_name given_name family_name maiden_name user_name nick_name
    display_name legal_name contact_name cardholder_name account_holder account_number account_no routing_number
    sort_code bank_account tax_id tax_number vat_id national_id identity_card social_security driver_license
    api_key access_key private_key secret_key encryption_key signing_key recovery_code security_answer security_question
    user_agent remote_addr remote_host mac_address device_id post_code zip_code house_number mot_de_passe blood_type
    """,
    )
)

_PEOPLE: Final = frozenset(
    re.findall(
        r"\w+",
        """
    user users customer customers client clients person persons people employee employees staff contact contacts
    patient patients member members student students teacher teachers subscriber subscribers guest guests
    candidate candidates applicant applicants author authors profile profiles driver drivers tenant owner owners
    kunde kunden mitarbeiter personne personnes persona personas cliente clientes usuario usuarios utilisateur klant
    """,
    )
)

_NAMES: Final = frozenset({"name", "names", "nom", "nombre", "nome", "naam", "initials", "age"})
"""Columns that are personal where the table is about people, and say little elsewhere."""

_ABOUT: Final = frozenset(
    re.findall(
        r"\w+",
        """
    id ids type kind count verified confirmed enabled required at status valid optin sent updated changed expires
    """,
    )
)
"""Last words of columns that tell something about such a value, not the value: `address_id`, `email_verified`."""

_NEVER_ABOUT: Final = frozenset({"email", "mail", "passport", "ssn", "taxid"})
"""With these, a last word `id` names the value itself: `email_id`."""


def looks_personal(table: str, column: str) -> bool:
    """Whether a column of this name, in a table of this name, looks personal or secret."""
    parts = words(column)
    if _holds_phrase(parts):
        return True
    if parts and parts[-1] in _ABOUT and not (parts[-1] == "id" and _NEVER_ABOUT.intersection(parts)):
        return False
    if _WORDS.intersection(parts) or "".join(parts) in _WORDS:
        return True
    return bool(parts) and parts[-1] in _NAMES and bool(_PEOPLE.intersection(words(table)))


def personal_columns(table: str, columns: Iterable[str], key: Iterable[str]) -> tuple[str, ...]:
    """Those of the columns that look personal; a column of the key never counts, since no row has a name without it."""
    kept = frozenset(key)
    return tuple(column for column in columns if column not in kept and looks_personal(table, column))


def _holds_phrase(parts: list[str]) -> bool:
    return any(
        "_".join(parts[start : start + size]) in _PHRASES for size in (2, 3) for start in range(len(parts) - size + 1)
    )
