# Completion for fish. Install it as ~/.config/fish/completions/@NAME@.fish, or source it.
function __@FUNCTION@_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l answer ($words[1] completions --candidates -- $words[2..-1] 2> /dev/null)
    switch "$answer[1]"
        case files
            __fish_complete_path (string replace -r '^-[^=]*=' '' -- $words[-1])
        case directories
            __fish_complete_directories (string replace -r '^-[^=]*=' '' -- $words[-1]) ''
        case '*'
            printf '%s\n' $answer[2..-1]
    end
end
complete -c @NAME@ -f -a '(__@FUNCTION@_complete)'
