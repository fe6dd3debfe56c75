# Completion for bash. Source this file, or install it as
# /usr/share/bash-completion/completions/@NAME@.
_@FUNCTION@_complete() {
    local line=${COMP_LINE:0:COMP_POINT} words=() answer=() kind word rest tab=$'\t'
    # The words as typed: bash's own are broken at "=" and ":".
    IFS=$' \t\n' read -ra words <<< "$line"
    case $line in *[[:space:]]) words+=("") ;; esac
    mapfile -t answer < <("${words[0]}" completions --candidates -- "${words[@]:1}" 2> /dev/null)
    kind=${answer[0]-}
    word=${words[${#words[@]} - 1]}
    COMPREPLY=()
    case $kind in
        files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "${word##*=}"); return ;;
        directories) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "${word##*=}"); return ;;
        open) compopt -o nospace ;;
    esac
    # Bash replaces only what follows the last of its word breaks.
    rest=$word
    while [[ -n $rest && $COMP_WORDBREAKS != *"${rest: -1}"* ]]; do rest=${rest%?}; done
    for word in "${answer[@]:1}"; do
        word=${word%%"$tab"*}
        COMPREPLY+=("${word#"$rest"}")
    done
}
complete -F _@FUNCTION@_complete @NAME@
